"""Hard negatives: candidates from several searches, without false negatives.

Queries and documents in, ids of negatives out; what is random depends on seed, epoch and query id only. Start
with ``miner.py``.
"""
