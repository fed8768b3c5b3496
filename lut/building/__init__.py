"""Which shapes to time next, and filling a table with them.

Imports `table`, `tflite`, `prediction`.
"""
