"""The KV cache: its tensors, which cells are free, what they hold, and sessions saved to disk.

Used by the scheduler, the tasks and the model; knows nothing of requests.
"""
