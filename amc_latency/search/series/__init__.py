"""Several searches as one job: pruning in rounds, and a front of targets."""
