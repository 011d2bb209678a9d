"""Changes to finished models: cut, merged, rotated, lengthened, adapted. No training loop may enter.

One file per edit; each takes a model and gives one. Start with ``shrink.py``.
"""
