"""Texts of no task for comparisons: beginnings of encyclopaedia leads, of documentation, and names of packages."""

import random
from pathlib import Path

from embedtrain.data.readers.text_lines import read_objects

FILES = {
    "text/wiki_vital_en.jsonl.gz": "text",
    "text/debian_docs.jsonl.gz": "text",
    "pairs/debian_packages.train.jsonl.gz": "query",
}
"""Files and the key of their texts."""


def beginnings(data: Path, number: int, letters: int) -> list[str]:
    """Return so many texts, as many of each file, drawn from all of it, each once."""
    drawn: list[str] = []
    for name, key in FILES.items():
        found = [str(row[key])[:letters] for _, row in read_objects(data / name)]
        drawn += random.Random(0).sample(found, number // len(FILES))
    return [text for text in dict.fromkeys(drawn) if text.strip()]


def halves(data: Path, number: int, letters: int) -> list[tuple[str, str]]:
    """Return beginnings of so many texts in two halves, cut between words."""
    found = []
    for text in beginnings(data, number, letters):
        middle = text.find(" ", len(text) // 2)
        if 0 < middle < len(text.rstrip()) - 1:
            found.append((text[:middle], text[middle + 1 :]))
    return found
