"""What an engine does besides streams: embeddings, scores of prompts, saved slots."""
