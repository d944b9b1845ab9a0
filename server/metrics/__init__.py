"""Prometheus metrics, under ggserve's names and under llama-server's.

The application makes one `Metrics`; routes and generation count into it. It imports `engine.types` and
`server.worker` only.
"""
