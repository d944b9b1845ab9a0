"""Options: one schema for the command line, the environment, the YAML file and the sample file.

`settings` and `model_settings` declare them, `option_types` parses values, `sources` reads them from where
users write them, `default_sampling` is what a request that leaves a parameter out gets.
"""
