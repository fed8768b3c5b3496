"""The command line: options, one call of the library for each command, and what is printed.

May import everything; nothing imports it.
"""
