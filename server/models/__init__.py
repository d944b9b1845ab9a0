"""Models by name: where their files come from besides a path, and what of them is on this machine.

`reference` reads names, `resolver` turns one into a file. Used by the commands and by the tests; knows
nothing of engines or HTTP.
"""
