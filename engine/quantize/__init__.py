"""Smaller files: which type each tensor gets, and rows to blocks. For `ggserve quantize`, `convert`."""
