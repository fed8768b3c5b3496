"""What comes from outside, read within bounds: files, records, text to show. Imports nothing of this project."""
