"""Embeddings: what /v1/embeddings, llama-server's /embeddings and /embedding, and /v1/rerank share."""
