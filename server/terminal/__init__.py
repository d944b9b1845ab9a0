"""A conversation in the terminal: commands, input, output, and the backend that answers: a local model or a
server.

Only `server.cli` may import it.
"""
