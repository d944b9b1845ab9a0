"""Chat: conversation and tools → prompt (templates), and text of the model → content, reasoning, tool calls.

Imports `engine`, `server.sandbox` and `server.errors`; `server.input`, `server.generation`, `server.http` and
`server.api` may import it.
"""
