"""What a device says of networks: profiling, predicting, timing files.

Imports `graph`, `models`, `export`, and the packages below.
"""
