"""Constrained decoding and reasoning blocks: schemas and grammars to token masks (llguidance).

Plain Python, no ggml. Used by the scheduler and, to check what clients send, by the server.
"""
