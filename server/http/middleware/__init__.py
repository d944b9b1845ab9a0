"""The layers around every route: access log, API keys, limits."""
