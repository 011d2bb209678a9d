"""Cross-encoders: query and document are read together, and a head makes one score of their states.

Nothing else of a model knows of pairs. Start with ``encoder.py``.
"""
