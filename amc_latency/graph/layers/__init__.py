"""A traced network as a list of layers: the walk, their shapes, which of their tensors are in memory."""
