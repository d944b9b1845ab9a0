"""HTTP itself: the uvicorn server, its protocol, JSON bodies, server-sent events, middleware."""
