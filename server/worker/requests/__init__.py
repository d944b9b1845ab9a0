"""Unfinished requests and tasks of an engine on the server's side: streams, slots, recovery after a crash.

For `server.worker.client` and the interface `server.worker.engine`.
"""
