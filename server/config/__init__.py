"""Options: one schema for the command line, the environment, the YAML file and the sample file.

`settings` and `model_settings` declare the options, `option_types` parses values, `sources` reads them from
where users set them (`yaml_file` for YAML), and `default_sampling` supplies the sampling parameters that a
request omits.
"""
