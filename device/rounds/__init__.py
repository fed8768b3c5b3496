"""Timing in rounds: what it comes to, networks side by side, several devices at once."""
