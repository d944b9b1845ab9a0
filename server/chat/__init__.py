"""Chat: renders conversations and tools to prompts, and parses output into content, reasoning and tool calls.

Imports `engine`, `server.sandbox` and `server.errors`; `server.input`, `server.generation`, `server.http` and
`server.api` may import it.
"""
