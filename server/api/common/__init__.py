"""What several APIs share: `requests`, `replies`, `embeddings`, and the base classes of schemas.

For the API packages only.
"""
