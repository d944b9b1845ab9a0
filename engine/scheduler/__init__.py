"""Continuous batching: which sequences run in each step, and with how many tokens.

Policy only, without ggml. Imported by `engine.engine`; `batch` also by other modules that compute with the
model.
"""
