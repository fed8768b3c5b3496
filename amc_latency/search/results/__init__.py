"""What a search writes: its run folder, and its report."""
