"""From documents to a collection of an engine: read, encoded, written, and searched there to see that all is right.

Start with ``load.py``. What engines are stands in :mod:`embedtrain.engines`.
"""
