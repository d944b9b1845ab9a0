"""From a parsed request to what the engine runs: templates, tokens, constraints, parameters."""
