"""The bridge to mteb (extra ``mteb``): our models as mteb sees them, our data as its tasks, its results as ours.

Nothing outside this folder imports mteb. Start with ``model.py``.
"""
