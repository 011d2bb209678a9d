"""What ``import embedtrain`` offers: the workflows, for what a Python session has in hand.

A file here turns paths, dicts, frames and loaded models into what a workflow takes, calls it and returns what it
returns; the work itself is not here. Start with ``training.py``.
"""
