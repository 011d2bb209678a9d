"""Triton kernels of embedtrain, called by ``embedtrain.ops`` only.

Importing this package needs neither Triton nor a GPU; importing one of its kernel modules needs Triton.
"""
