"""API keys: the key file, the clients that keys identify, and each client's limits.

For `server.http.middleware`, `server.state` and the request context.
"""
