"""Triton kernels, one file per operator; they import triton and the table of activations, nothing else."""
