"""GBNF grammars: parsed, cut into terminals, and written as Lark. For `engine.constraint` only."""
