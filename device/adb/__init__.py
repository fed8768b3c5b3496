"""Ways to a phone: an adb server, or our own connection over TCP or USB."""
