"""Networks that the package knows by name."""
