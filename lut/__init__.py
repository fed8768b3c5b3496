"""What a layer costs: layer shapes, one-layer `.tflite` files, latency tables and predictions from them."""
