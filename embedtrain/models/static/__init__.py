"""Tables of word vectors: models without layers, built from an encoder or a file.

They are dense encoders to everything else. Start with ``build.py``.
"""
