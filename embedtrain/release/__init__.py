"""A trained model becomes a folder that other libraries load, and is proven to be one before it is announced.

Layouts of other libraries, graphs for other runtimes, the rules of servers and the Hub belong here. Start with
``export.py``.
"""
