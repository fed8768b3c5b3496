"""A network -> a `.tflite`: our writer, two converters of others, and the check against PyTorch.

Imports `graph` and `models`.
"""
