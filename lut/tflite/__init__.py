"""`.tflite` files written operator by operator, and run through LiteRT.

Knows nothing of layers and imports nothing of lut; never torch.
"""
