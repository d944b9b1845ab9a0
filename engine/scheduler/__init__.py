"""Continuous batching: which sequences run, with how many tokens, in each step. Policy only, no ggml."""
