"""Download and build the pinned ggml. Used by setup.py and tests; not installed."""
