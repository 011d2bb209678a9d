"""From the user's files to batches of token ids: readers, caches, mixtures, batches.

Texts enter here and leave as ids; no model weights may enter. Start with ``sources.py``, the one door to
training data.
"""
