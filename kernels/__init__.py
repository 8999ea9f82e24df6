"""Triton kernels, one file per operator; they import triton and nothing else."""
