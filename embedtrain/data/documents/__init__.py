"""Documents as people keep them: files of a folder, read, cleaned and split into chunks.

A reader per format gives :class:`~embedtrain.data.documents.document.Document` s; nothing here knows queries or
models. Start with ``document.py``.
"""
