"""A whole search. Its parts import each other in one direction:

run, series -> steps -> delivery, agents, targets -> solvers -> episodes, results -> judge -> costs, config -> records.
"""
