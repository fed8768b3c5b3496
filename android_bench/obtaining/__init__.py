"""Where the programs that time models on a phone come from: built, found, or out of a wheel."""
