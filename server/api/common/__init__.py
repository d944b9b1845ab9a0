"""What several APIs share: request fields and their parsing, timings, log-probabilities, content blocks.

For the packages of the APIs only.
"""
