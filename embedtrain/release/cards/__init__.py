"""Model cards: what a model is, how to load it and how good it is, all from files, nothing typed by hand.

One file per kind of card. Start with ``retrieval.py``.
"""
