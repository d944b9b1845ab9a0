"""llama-server's /completion and /infill: requests, jobs and responses in its format."""
