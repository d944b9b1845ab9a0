"""From logits to tokens: parameters and their bounds, and the compiled sampler.

`parameters` is plain Python, and the server imports it to check requests.
"""
