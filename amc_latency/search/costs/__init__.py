"""What every channel count costs, which counts a budget allows, and what the search maximises."""
