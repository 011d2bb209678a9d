"""How work ends early: the user can mend it, a signal came, or a rank died."""

import re
import signal

NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Ends of lines, control characters, which may steer a terminal, and halves of surrogate pairs."""

LONGEST = 4000
"""Characters of a message: a name that a damaged file gives may be megabytes, which nobody reads."""


class UserError(ValueError):
    """A mistake in what the user gave: a recipe, a file, a flag.

    Reads ``<place> <what is wrong>; got <value>. <cure>.`` The command line prints it as one line and
    exits with code 2; any other exception is our own fault and exits with code 1. It is one line whatever stands
    in the names and values.

    Args:
        place: Where the mistake is, as the user would find it: ``recipe.yaml:4``, ``data.jsonl:17``.
        problem: What is wrong, without the value.
        got: The value found, shown with ``repr`` and shortened; leave it out (``...``) where none says more.
        cure: What to do, an imperative without the final stop.
    """

    def __init__(self, place: object, problem: str, *, got: object = ..., cure: str = "") -> None:
        value = "" if got is ... else f"; got {_shorten(got)}"
        advice = f" {cure}" if cure.endswith("?") else f" {cure}." if cure else ""
        line = one_line(f"{place} {problem}{value}.{advice}")
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...")


class NothingLeftError(UserError):
    """What was given can be used, but nothing that trains came of it; a longer piece of work may know a way on."""


def one_line(text: str) -> str:
    """Return the text with ends of lines and what no terminal should get written as escapes."""
    return NOT_PRINTED.sub(lambda found: repr(found[0])[1:-1], text)


def _shorten(value: object, limit: int = 120) -> str:
    try:
        text = repr(value).replace("\n", " ")  # of arrays and frames it has lines
    except (ValueError, RecursionError):  # Python writes no number of more than 4300 digits
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(
        package,
        f"is needed {purpose} but is not installed",
        cure=f'Run pip install "embedtrain[{extra}]"',
    )


EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
"""Exit code of a process that a signal has stopped in good order.

Shells know 128 + the signal; 75 is what ``sysexits.h`` calls a failure for now: start it again.
"""


INTERRUPTED = EXIT_CODES[signal.SIGINT]


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Work was stopped by a signal, in good order: what was done so far is saved.

    Args:
        what: What was stopped.
        number: The signal.
        way_on: How to go on.
    """

    def __init__(self, what: str, number: int = signal.SIGINT, way_on: str = "") -> None:
        super().__init__(f"{what}; {way_on}" if way_on else what)
        self.what = what
        self.number = signal.Signals(number)

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return EXIT_CODES[self.number]


REFUSED = 3
"""Exit code of work that came to its end and whose result is not good enough to ship."""


class Refused(Exception):  # noqa: N818 - nothing went wrong
    """Work is done, and what it made is no better than what was there before, which stays the result.

    Says why in one plain paragraph.
    """


class StoppedAtOnce(BaseException):
    """A signal ends work wherever it is; like ``KeyboardInterrupt``, no ``except Exception`` holds it up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class RankDied(Exception):  # noqa: N818 - reads as what happened
    """A rank was killed or failed; the others were ended."""
