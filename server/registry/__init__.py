"""The models that can be served: which of them have an engine, which requests use it, and loading and
unloading.

For the application, its routes and the HTTP server.
"""
