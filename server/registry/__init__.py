"""The models that can be served: which of them have an engine, who uses it, and what is loaded and unloaded.

For the application, its routes and the HTTP server.
"""
