"""Models loaded and unloaded on request: llama-server's routes of its router, and ours under /v1."""
