"""From texts to files of vectors: one file, a folder shard by shard, or spans of texts.

What only one of these needs stays here; encoding itself is in :mod:`embedtrain.encoding`. Start with ``file.py``.
"""
