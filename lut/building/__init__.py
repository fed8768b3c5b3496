"""Which shapes to time next, the files that are timed, and filling a table with them.

Imports `table`, `tflite`, `prediction`.
"""
