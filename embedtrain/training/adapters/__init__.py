"""Adapters of vectors that some other model gave: trained in memory, in seconds, without a trainer.

No model of texts may enter. Start with ``fit.py``.
"""
