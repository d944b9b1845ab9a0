"""Fetching and building the pinned ggml. Used by setup.py and by tests; not installed."""
