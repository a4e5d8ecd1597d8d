"""Compiled kernels of the backend `numba`: explicit vectors, threads, an on-disk cache of machine code."""
