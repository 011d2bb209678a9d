"""Search over embeddings: arrays in, ranked ids and scores out.

No text and no model may enter. Start with ``search.py``, which chooses between one vector and several.
"""
