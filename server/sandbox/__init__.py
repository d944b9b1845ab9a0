"""Child processes with limited processor time and memory, for input that may do harm.

Constraints are compiled on trial here before an engine sees them. Imports `engine.constraint` and
`server.worker.transport`; `server.input` may import it.
"""
