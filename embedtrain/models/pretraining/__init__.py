"""Masked autoencoders: an encoder and what tests it during pre-training, which is thrown away afterwards.

Start with ``masked_autoencoder.py``.
"""
