"""Child processes with limited processor time and memory, for untrusted input.

Constraints are first compiled in one (`constraint_child`), before an engine sees them. Imports
`engine.constraint` and `server.worker.transport`; `server.input` may import it.
"""
