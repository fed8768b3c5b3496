"""Training and fine-tuning of classifiers, and what their outputs are worth.

Imports `data`, `models` and `graph`.
"""
