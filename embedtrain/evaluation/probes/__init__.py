"""Probes: what a model can and cannot do, each a file, found by :func:`embedtrain.evaluation.probes.discovery.probe_kinds`.

A new probe is one file here. Start with ``base.py``.
"""
