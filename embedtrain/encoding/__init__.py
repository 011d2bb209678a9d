"""Texts to vectors, any number of them, resumable: once per weights, kept in files that are memory-mapped.

Mining, search and evaluation all encode here. Start with ``texts.py``.
"""
