"""Encoders: token ids in, embeddings out.

A model knows its contract and nothing of losses, ranks or files of data. Start with ``build.py``, which makes one
from a recipe or a folder, then ``encoder.py``.
"""
