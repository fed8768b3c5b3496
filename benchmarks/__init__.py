"""What published figures come from: each module prints a table, `python -m benchmarks.NAME` from the checkout."""
