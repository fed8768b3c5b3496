"""Agents that learn, and their warm start."""
