"""The KV cache: its tensors, which cells are free, which prefixes they hold, and sessions saved to disk.

Imported by graph, scheduler, tasks, model and sessions. It knows nothing of requests.
"""
