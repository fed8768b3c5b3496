"""Tables and logs of others -> a latency table.

Imports `table` and `shapes`.
"""
