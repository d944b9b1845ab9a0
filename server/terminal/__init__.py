"""A conversation in the terminal: commands, input, output, and what answers: a model here or a server.

Only `server.cli` may import it.
"""
