"""Runs Android's arm64 programs on this computer: emulated, with glibc in the place of Android's C library."""
