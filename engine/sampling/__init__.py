"""From logits to a token: parameters and their bounds, and the compiled sampler."""
