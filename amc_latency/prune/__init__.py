"""Which channels go, how the layers that read them are refitted, and cutting them for real."""
