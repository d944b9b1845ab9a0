"""What requests of several APIs share: fields, what parsers have in common, structured output.

For the schemas and parsers of the APIs.
"""
