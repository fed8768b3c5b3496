"""Ours beside what one would use instead, on real tasks, at equal measured milliseconds.

    python -m benchmarks.rivals --task trashnet --data FOLDER [--quick]

`tasks` says what is trained on what, `methods` and `others` who the rivals are, `equal` brings each to the same
milliseconds, `runs` cuts, times and fine-tunes, `report` prints the tables. `benchmarks.signals` takes its tasks here.
"""
