"""A phone on a loopback socket: an ADB device daemon, the faults it can have, and the programs that run on it."""
