"""One batch as a ggml graph: building it, running it, and our own operations in it."""
