"""Child processes that do the timing, within limits."""
