"""Constrained decoding and reasoning blocks: turns schemas and grammars into token masks (llguidance).

Plain Python without ggml. Imported by the scheduler and sessions, and by the server, to check what clients
send.
"""
