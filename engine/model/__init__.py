"""Loading a model: placement on devices, weights, KV cache and runner.

Imported by `engine.engine` and the command line; sessions and tasks import `context` only.
"""
