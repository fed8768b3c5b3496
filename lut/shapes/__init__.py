"""The layer shape, the kinds of layers, families of shapes, and a network as a list of them.

Imports nothing of lut but, for its types, the writer of `.tflite` files.
"""
