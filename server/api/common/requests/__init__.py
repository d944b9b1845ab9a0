"""What requests of several APIs share: fields, the reader of JSON objects, options, structured output.

For the schemas and parsers of the APIs.
"""
