"""Search with one vector per text: exact, by faiss, by a pair head, by sets of examples.

Arrays in, ranked ids out; no model may enter. Start with ``exact.py``.
"""
