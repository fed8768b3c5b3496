"""Networks that are known by name, ours and those of torchvision and timm."""
