"""Models by name: where their files come from besides paths, and which of them are on this machine.

`reference` parses names, `resolver` turns one into a file. Used by the commands and by the tests; knows
nothing about engines or HTTP.
"""
