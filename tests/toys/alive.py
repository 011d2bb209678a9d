"""What tests import and collect lives as long as they do: the search for garbage passes over it.

Imports make millions of objects, over which Python would go again and again, a tenth of their time; and a fork that
goes over what it has from its parent copies each page of it.
"""

import gc
import os
from collections.abc import Generator

import pytest

gc.disable()
os.register_at_fork(after_in_child=gc.freeze)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the search begin when all tests are known."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
