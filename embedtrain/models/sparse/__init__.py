"""Sparse models: one weight for each word of a vocabulary, most of them 0; SPLADE, inference-free queries, CSR, UHD.

Start with ``encoder.py``, then ``vocabulary_head.py``. Nothing here knows an index or an objective.
"""
