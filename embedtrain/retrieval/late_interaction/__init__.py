"""Search with several vectors per text: exact, or by an index whose recall is measured.

One file per index, all behind ``indexes.py``. Start with ``exact.py``.
"""
