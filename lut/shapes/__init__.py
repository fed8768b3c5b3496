"""The layer shape, families of shapes, and a network as a list of them."""
