"""From shapes to a grammar in llguidance's dialect of Lark. Used by `engine.constraint.json_schema` only."""
