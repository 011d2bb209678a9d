"""Logs are caught at the root: pytest would go over a thousand loggers before each part of a test, and behind it.

It looks for those that keep their records to themselves, as some of PyTorch's do, of which no test reads.
"""

import logging

from _pytest.logging import catching_logs


def catch_at_root(caught: catching_logs[logging.Handler]) -> logging.Handler:
    """Do what pytest does for the root's logger alone."""
    root = logging.getLogger()
    if caught.level is not None:
        caught.handler.setLevel(caught.level)
        caught.orig_level = root.level
        root.setLevel(min(root.level, caught.level))
    root.addHandler(caught.handler)
    caught.attached_loggers.append(root)
    return caught.handler


catching_logs.__enter__ = catch_at_root
