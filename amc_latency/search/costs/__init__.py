"""What every channel count costs, and which counts a budget allows."""
