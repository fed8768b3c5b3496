"""This computer's CPU."""
