"""From a schema as it was sent to shapes. Used by `engine.constraint.json_schema` only."""
