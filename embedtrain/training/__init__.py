"""The Lightning modules around models and objectives, and what happens around their steps.

Only ``trainer.py`` and ``fitting.py`` start Lightning, only ``ranks/`` talks to other processes. Start with
``module.py``, the step of retrieval.
"""
