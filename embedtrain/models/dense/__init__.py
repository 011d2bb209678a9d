"""Dense encoders: one vector per text, and the parts that may stand beside pooling.

One file per part; the folder's layout on disk is in ``layout.py``. Start with ``encoder.py``.
"""
