"""Custom operations of the CPU graph: Cython around `engine/graph/kernels`."""
