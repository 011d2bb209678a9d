"""Reads the documentation as its readers do: fenced blocks and commands in the text, each with its place."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from places import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "recipes/*/README.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # tells of commands as they were
)
FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
IN_TEXT = re.compile(r"`((?:embedtrain|make|pytest|python scripts/[^\s`]+)(?: [^`\n]+)?)`")
ASSIGNMENT = re.compile(r"^[\w.]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the place of its first line."""

    place: str
    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command line as words; ``partial`` where the text only names it."""

    place: str
    words: tuple[str, ...]
    partial: bool = False


def blocks_of(name: str, text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for found in FENCE.finditer(text):
        indent, language, title, body = found.groups()
        line = text.count("\n", 0, found.start()) + 2
        body = "\n".join(row.removeprefix(indent) for row in body.splitlines())
        yield Block(f"{name}:{line}", language, title.strip(), body)


def commands_of(name: str, text: str) -> Iterator[Command]:
    """Yield the commands of a page: those of shell blocks, and those that stand in the text."""
    for block in blocks_of(name, text):
        if block.language == "bash":
            yield from _shell(block)
    plain = FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for found in IN_TEXT.finditer(plain):
        line = plain.count("\n", 0, found.start()) + 1
        words = _split(found[1].replace("...", ""), f"{name}:{line}")
        yield Command(f"{name}:{line}", tuple(words), partial=True)


def _shell(block: Block) -> Iterator[Command]:
    name, _, first = block.place.rpartition(":")
    waiting, start = "", 0
    for number, line in enumerate(block.text.splitlines(), int(first)):
        start = start if waiting else number
        waiting += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        for part in waiting.split("&&"):
            words = _split(part, f"{name}:{start}")
            while words and ASSIGNMENT.match(words[0]):
                words = words[1:]
            if words:
                yield Command(f"{name}:{start}", tuple(words))
        waiting = ""


def _split(line: str, place: str) -> list[str]:
    """Split as a shell does; a redirection is no word of the command."""
    try:
        return shlex.split(line.partition(" > ")[0], comments=True)
    except ValueError as error:
        raise AssertionError(f"{place}: no shell takes {line!r} ({error})") from error
