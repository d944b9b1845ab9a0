"""Repositories of the Hugging Face Hub: which file, its download, and what the cache holds.

Built on huggingface_hub, which is imported when it is used. `choice` is pure.
"""
