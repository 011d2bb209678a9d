"""From a model to result files, tables and a page.

Tasks, measures and probes are in :mod:`embedtrain.evaluation`; here they are put to work and their results kept.
Start with ``model.py``.
"""
