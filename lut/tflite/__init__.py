"""`.tflite` files written straight from shapes, and run through LiteRT.

Imports `shapes`; never torch.
"""
