"""What a command does, from start to end: train, mine, score, search, evaluate, encode, merge.

A workflow opens files, calls the layers below and writes results; it prints nothing but progress and knows no
option of the command line. Start with ``train.py``.
"""
