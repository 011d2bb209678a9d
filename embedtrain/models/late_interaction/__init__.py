"""Late-interaction encoders: several vectors per text, compared by MaxSim.

One file per part, as in ``models/dense``. Start with ``encoder.py``.
"""
