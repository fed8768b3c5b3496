"""The budgets of a search, and the bounds of its keep ratios."""
