"""GET and POST /slots."""
