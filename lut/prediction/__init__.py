"""A network's milliseconds from a table, or from a cost model.

Imports `table` and `shapes`.
"""
