"""Parts of requests that several APIs share: fields, parsing helpers, structured output.

For the schemas and parsers of the APIs.
"""
