"""Whether a table can be trusted, and what it shows.

Imports `table` and `prediction`.
"""
