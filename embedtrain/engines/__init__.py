"""Databases and their files that hold documents with vectors: one file an engine, behind one protocol.

An engine knows no model and makes no vector: it keeps what it is given and finds it again. Start at
:mod:`.engine`; :func:`embedtrain.engines.open.open_engine` finds the one that an address names.
"""
