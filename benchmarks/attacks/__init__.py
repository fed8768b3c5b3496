"""Attacks on the product: each module makes one sort of hostile input, `harness` runs and judges them."""
