"""Chat templates: rendering in a sandboxed process, and probing of what a template supports."""
