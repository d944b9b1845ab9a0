"""Prometheus, by our names and by llama-server's."""
