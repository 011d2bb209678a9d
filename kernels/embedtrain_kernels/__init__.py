"""Triton kernels; they know torch and triton, and nothing of embedtrain."""
