"""The command line: one file a command.

A command parses its options, calls one workflow and prints; it computes nothing, and heavy imports wait until
it runs. Start with ``main.py``, which lists the commands under their headings.
"""
