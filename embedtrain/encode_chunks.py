"""Say of the chunks whose vectors were written where they stand in their texts."""

import json
from collections.abc import Iterable
from pathlib import Path

from embedtrain.models.late_chunking import LateChunkEncoder


def write_chunk_spans(encoder: LateChunkEncoder, texts: Iterable[str], vectors: Path) -> Path:
    """Write ``.chunks.jsonl`` beside a file of vectors: a line per vector, in their order.

    ``text`` is the number of the text, from 0; ``start`` and ``end`` are characters of it, title included.
    """
    path = vectors.with_suffix(".chunks.jsonl")
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            for start, end in encoder.chunk_spans(text):
                file.write(json.dumps({"text": number, "start": start, "end": end}) + "\n")
    partial.replace(path)
    return path
