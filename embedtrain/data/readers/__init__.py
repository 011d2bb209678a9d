"""Files of the user, read with care: every mistake is said with its file and line.

One file per format; each gives :class:`~embedtrain.data.examples.Example` s. Start with ``tabular.py``.
"""
