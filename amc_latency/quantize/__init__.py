"""Networks in other precisions, as PyTorch simulates them: ranges of tensors, fake quantisation. Imports graph."""
