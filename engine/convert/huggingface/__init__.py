"""How the models of Hugging Face transformers become GGUF files: one file per architecture."""
