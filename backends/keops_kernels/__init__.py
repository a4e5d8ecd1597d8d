"""Kernels as symbolic reductions: KeOps forms no matrix of modes and time steps, so memory is O(N + L)."""
