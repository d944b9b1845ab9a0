"""What several APIs share: `requests`, `replies`, `embeddings`, and what schemas are built from.

For the packages of the APIs only.
"""
