"""Where a workload is timed: this computer's CPU, later a phone or a GPU."""
