"""llama-server's own API: its requests as jobs, and jobs in its words."""
