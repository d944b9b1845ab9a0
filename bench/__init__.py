"""Benchmarks: `python -m bench` compares with llama.cpp's server, see `bench/README.md`."""
