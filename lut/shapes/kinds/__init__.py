"""The kinds of layers, a record each: see `Kind`. Imports nothing but `kind.py` and one another."""
