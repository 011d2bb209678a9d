"""Kinds of evaluation tasks: one file each, found by :func:`embedtrain.tasks.discovery.task_kinds`."""
