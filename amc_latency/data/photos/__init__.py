"""Photos from files: decoded whatever their kind, shrunk, and cut for evaluation. Imports nothing of `sets`."""
