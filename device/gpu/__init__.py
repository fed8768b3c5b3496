"""GPUs of this computer, through PyTorch."""
