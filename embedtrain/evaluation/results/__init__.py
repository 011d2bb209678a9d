"""Results of evaluations: their files, comparisons, tables, plots and the page that shows them.

What computes a figure is in ``measures/``. Start with ``result.py``.
"""
