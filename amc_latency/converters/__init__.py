"""PyTorch -> `.tflite` by others' converters, and the choice between them and ours."""
