"""A request while the engine works on it: its context, its output sequences, and their text.

For `server.api`, `server.input` and `server.http`.
"""
