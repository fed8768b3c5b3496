"""What a policy is worth before fine-tuning, and what a search maximises."""
