"""What a JSON value may be, and what shapes have in common. Used by `reading` and `writing` beside it."""
