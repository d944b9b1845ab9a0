"""llama.cpp's own server tests, run against llama-server and against us: `python -m bench.compat --help`."""
