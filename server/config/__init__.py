"""The options: one schema for command line, environment, YAML file and sample file."""
