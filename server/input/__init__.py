"""Turns a parsed request into engine requests: chat template, tokenizer, output constraints, limits.

For the routes and parsers of `server.api`.
"""
