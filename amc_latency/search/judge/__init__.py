"""What a policy is worth before fine-tuning."""
