"""The middleware around every route: access log, API keys, limits."""
