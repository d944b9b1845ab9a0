"""The formats in which models call tools, one file per format."""
