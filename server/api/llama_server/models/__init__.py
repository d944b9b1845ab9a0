"""Loading and unloading models: the routes of llama-server's router, and our own under /v1."""
