"""OpenAI's conversations."""
