"""What PyTorch's modules and functions are as layers: a `TorchKind` each, which `registry.py` finds."""
