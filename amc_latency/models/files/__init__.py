"""Weights and checkpoints on disk, checked before anything is believed."""
