"""The contract: how a text becomes token ids, and token states a vector.

Prompts, lengths, pooling and similarity are values of this folder; training, mining, evaluation and export read
them from here. No model and no file format may enter. Start with ``texts.py``.
"""
