"""The KV cache: its tensors, free cells, cached prefixes, and sessions saved to disk.

Imported by graph, scheduler, tasks, model and sessions. It knows nothing about requests.
"""
