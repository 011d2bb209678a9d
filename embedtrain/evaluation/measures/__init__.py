"""Metrics, their intervals and tests, and costs: numbers in, numbers out.

No model and no file may enter. Start with ``metrics.py``.
"""
