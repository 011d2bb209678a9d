"""Search by sparse vectors: inverted lists, exact or shortened.

Nothing dense of the size of a corpus may enter. Start with ``exact.py``.
"""
