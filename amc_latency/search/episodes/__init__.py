"""What an agent is, the environment that it acts in, and the loop that runs episodes or replays them."""
