"""Queries for documents that have none: planned, written by rules or by a language model, and filtered.

A writer gives candidates, filters say of each whether it trains; nothing that was written is thrown away. Start
with ``candidate.py``.
"""
