"""Kernels of the backend `triton`: fused recurrences and their adjoints, for CUDA GPUs and Triton's interpreter.

Modules with kernels import triton; they are imported when a kernel is first needed, never by looking at the backend.
"""
