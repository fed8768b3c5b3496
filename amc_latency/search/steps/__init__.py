"""What a search does, in order: prepare, attempt (as often as corrections ask for it), finish."""
