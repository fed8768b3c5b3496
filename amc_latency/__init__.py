"""What to cut: networks, coupled groups, refit, search, fine-tuning, export and the command line."""

__version__ = "0.1.0"
