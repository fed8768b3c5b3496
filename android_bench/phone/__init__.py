"""What a phone is asked and told beside timing: its state, its settings."""
