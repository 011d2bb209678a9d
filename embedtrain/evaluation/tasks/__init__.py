"""Kinds of evaluation tasks: one file each, found by :func:`embedtrain.evaluation.tasks.discovery.task_kinds`.

A task reads its own data and gives figures per item; a new kind is one file here. Start with ``base.py``.
"""
