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
