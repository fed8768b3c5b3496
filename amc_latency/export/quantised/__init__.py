"""A network as a `.tflite` some or all of whose layers are int8: ranges from real images, a precision a layer.

Static int8 by ai-edge-quantizer, on the float32 file that our own exporter writes.
"""
