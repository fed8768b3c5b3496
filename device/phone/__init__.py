"""Android phones: blocks of models timed by a program that runs there.

Imports `adb` and `android_bench`.
"""
