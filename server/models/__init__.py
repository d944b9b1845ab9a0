"""Where model files come from besides a path: packages of the Python index.

Used by the commands and by the tests; knows nothing of engines or HTTP.
"""
