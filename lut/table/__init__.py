"""The latency table: its file, its rows, its header.

Imports `shapes`.
"""
