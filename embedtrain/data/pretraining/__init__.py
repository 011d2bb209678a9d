"""Unlabelled text: read, cut into spans, tokenised once, and masked as a pure function of seed and step.

Start with ``corpus.py``.
"""
