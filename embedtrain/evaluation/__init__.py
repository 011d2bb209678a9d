"""How good a model is, and how sure we are: tasks, measures, probes, results, and the bridge to mteb.

Nothing here trains or writes a model. Start with ``tasks/base.py`` for what is measured, ``measures/statistics.py``
for how sure it is.
"""
