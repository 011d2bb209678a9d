import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Most tests here export: to reload each in a process of its own would take seconds."""
