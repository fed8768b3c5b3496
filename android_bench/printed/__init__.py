"""What programs printed, and what it means: pure functions of text."""
