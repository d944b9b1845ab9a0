"""What several APIs share: fields of requests, usage, timings, log-probabilities, content blocks."""
