"""A request that runs: its choices, and the engine's tokens as text."""
