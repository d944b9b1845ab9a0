"""Chat templates: rendering in a sandboxed process, and probing what a template supports."""
