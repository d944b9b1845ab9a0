"""Child processes with limited processor time and memory, for untrusted input.

Constraints are first compiled here, before an engine sees them. Imports `engine.constraint` and
`server.worker.transport`; `server.input` may import it.
"""
