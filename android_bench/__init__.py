"""What runs on the phone, and how it is pushed, run and read."""
