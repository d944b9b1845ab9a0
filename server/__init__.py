"""The server: HTTP APIs, chat templates, engine processes, and the command line."""
