"""Calls to an engine: tried again where the failure may pass, and else one line for the user."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from embedtrain.errors import UserError, missing_extra
from embedtrain.redaction import redact

TRIES = 5
FIRST_WAIT = 0.5
"""Seconds; the wait doubles after each try."""
DOWN = (
    *("refused", "connect", "timed out", "no such file"),
    *("not known", "resolve", "unreachable", "no route"),
)
"""What clients say of an engine that does not answer."""
MOST = 2000
"""Characters of a message that are looked at; fewer are shown."""
T = TypeVar("T")


def load_client(module: str, package: str, extra: str, scheme: str) -> Any:  # noqa: ANN401 - clients have no types
    """Import the client of an engine.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing_extra(package, extra, f"for {scheme}://") from error


def call(
    place: str,
    work: Callable[[], T],
    failures: tuple[type[Exception], ...],
    passes: Callable[[Exception], bool] = lambda _: False,
) -> T:
    """Do something that an engine may refuse.

    Args:
        place: The address.
        work: What to do; done again as a whole if ``passes``.
        failures: What the engine's client raises.
        passes: Whether a failure may be gone a little later.

    Raises:
        UserError: If the engine is down or refuses.
    """
    for number in range(TRIES):
        try:
            return work()
        except UserError:
            raise
        except failures as error:
            if passes(error) and number < TRIES - 1:
                time.sleep(FIRST_WAIT * 2**number)
                continue
            raise refusal(place, error) from error
    raise AssertionError


def refusal(place: str, error: Exception) -> UserError:
    """Return the line for what an engine's client raised."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    words = redact(" ".join(lines[:3])[:MOST])  # a client may quote a whole file
    is_down = any(word in words.lower() for word in DOWN)
    cure = "Start the engine, or correct the address" if is_down else ""
    return UserError(place, "cannot be reached" if is_down else "refuses", got=words, cure=cure)
