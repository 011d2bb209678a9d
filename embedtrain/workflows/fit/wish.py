"""What somebody asks of ``embedtrain fit``, checked before anything is read."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from embedtrain.encoding.language.posting import KEY
from embedtrain.errors import UserError
from embedtrain.files import read_json
from embedtrain.redaction import redact
from embedtrain.section import Section
from embedtrain.units import show_seconds

WISH = "fit.json"
"""Kept in the output folder, so that the same command goes on with it."""
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
FLAGS = {"corpus": "CORPUS", "guards": "--guard", "seconds": "--budget"}
"""Those that are not named as their field is."""
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 60.0}


class FitWish(Section):
    """The words of the command."""

    corpus: str | None
    pairs: str | None
    queries: str | None
    llm: str | None
    reranker: str | None = None
    model: str
    guards: tuple[str, ...]
    seconds: float
    """Wall time."""

    def check(self) -> None:
        """Refuse what cannot work.

        Raises:
            UserError: Saying why, without a key that stands in an address.
        """
        if self.corpus is None and self.pairs is None:
            cure = "Name a folder of documents, or --pairs FILE"
            raise UserError("CORPUS", "is missing", cure=cure)
        for flag, path in (("CORPUS", self.corpus), ("--queries", self.queries)):
            if path is not None and not Path(path).expanduser().exists():
                raise UserError(flag, "does not exist", got=path, cure="Check the path")
        if self.llm is not None:
            _check_address(self.llm)
            if self.corpus is None:
                cure = "Name a folder of documents, or leave --llm out"
                raise UserError(
                    "--llm", "writes queries for documents, and there are none", cure=cure
                )
            if self.pairs is not None:
                cure = "Leave one of them out"
                raise UserError("--llm", "writes no queries where --pairs gives them", cure=cure)


def _check_address(llm: str) -> None:
    """Refuse an address that holds a key: it would stand in recipes, logs and reports."""
    shown = redact(llm)
    if shown != llm or (urlsplit(llm).scheme in ("http", "https") and "?" in llm):
        cure = f"Put the key into the environment variable {KEY} and leave it out of the address"
        raise UserError("--llm", "holds a key or a query", got=shown.partition("?")[0], cure=cure)


def read_duration(words: str, flag: str = "--budget") -> float:
    """Return the seconds of ``90s``, ``30m``, ``2h`` or, in minutes, ``30``.

    Raises:
        UserError: If it is none of these, or nothing.
    """
    found = DURATION.fullmatch(words.strip().lower())
    if found is None or float(found[1]) == 0:
        raise UserError(flag, "is no length of time", got=words, cure="Write 90s, 30m or 2h")
    return float(found[1]) * UNITS[found[2]]


def known_wish(output: Path) -> FitWish | None:
    """Return what an output folder was begun for; None if it was begun for nothing."""
    if not (output / WISH).is_file():
        return None
    found = read_json(output / WISH)
    try:
        return FitWish.model_validate(found)
    except ValueError as error:
        cure = "Choose another --output or remove the folder"
        raise UserError(output / WISH, "is not what fit wrote", cure=cure) from error


def refuse_other_wish(wish: FitWish, known: FitWish, output: Path) -> None:
    """Refuse to go on with other words than those that the folder was begun with.

    Raises:
        UserError: Naming the first that differs.
    """
    for name, value in known.model_dump().items():
        if (given := getattr(wish, name)) != value:
            flag = FLAGS.get(name, f"--{name}")
            problem = f"was begun {_said(flag, value)}, and this is {_said(flag, given)}"
            raise UserError(
                output, problem, cure="Give the same words to go on, or choose another --output"
            )


def _said(flag: str, value: object) -> str:
    if value in (None, ()):
        return f"without {flag}"
    shown = " ".join(value) if isinstance(value, tuple) else value
    return f"with {flag} {show_seconds(shown) if isinstance(shown, float) else shown}"
