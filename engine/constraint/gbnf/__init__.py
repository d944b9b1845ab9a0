"""Grammars and schemas, checked and made ready for llguidance. No ggml, no compiled extension."""
