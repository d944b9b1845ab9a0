"""Constrained decoding and reasoning blocks: from schemas and grammars to token masks (llguidance).

Plain Python without ggml. The scheduler and sessions import it, and the server, to check what
clients send.
"""
