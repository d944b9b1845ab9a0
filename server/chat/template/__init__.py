"""Chat templates: rendering in a sandbox with a budget, and what a template can do."""
