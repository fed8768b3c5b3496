"""The reinforcement-learning search: environment, clamp, agent, baselines and the run folder."""
