"""Training data without a download: docstrings of the installed packages, parsed, never imported.

Start with ``source.py``.
"""
