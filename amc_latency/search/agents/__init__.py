"""Agents that learn, their environment, and the loop that runs episodes."""
