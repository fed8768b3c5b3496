"""A network's Python code -> layers, what becomes of every channel, and coupled groups.

Imports only the packages below.
"""
