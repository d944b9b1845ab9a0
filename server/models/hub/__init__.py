"""Repositories of the Hugging Face Hub: choosing a file, downloading it, and the contents of the cache.

Built on huggingface_hub, which is imported when needed. `choice` has pure functions.
"""
