"""API keys: their file, the clients that they identify, and what each client may use.

For `server.http.middleware`, `server.state` and the request context.
"""
