"""From a parsed request to what the engine runs: chat template, tokenizer, output constraints, limits.

For the routes and parsers of `server.api`.
"""
