"""Continuous batching: which sequences run, with how many tokens, in each step.

Policy only, without ggml. Imported by `engine.engine`; `batch` also by whoever else computes with the model.
"""
