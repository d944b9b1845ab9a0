"""Parts of responses that several APIs share: content blocks, log-probabilities, timings, errors,
completions.

For the formatters of the APIs.
"""
