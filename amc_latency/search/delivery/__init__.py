"""From a policy to a measured file."""
