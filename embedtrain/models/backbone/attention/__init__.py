"""Attention within each of several texts that lie end to end: one function, and what computes it where.

:func:`~embedtrain.models.backbone.attention.attend.attend` is the function,
:mod:`~embedtrain.models.backbone.attention.reference` its definition and
:mod:`~embedtrain.models.backbone.attention.choice` says which backend serves which device.
"""
