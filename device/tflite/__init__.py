"""What a `.tflite` of the user's says of itself."""
