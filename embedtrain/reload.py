"""Encode texts with a model folder in a process of its own: ``python -m embedtrain.reload FOLDER OUT.npz``.

Reads a JSON list of texts from standard input. Uses sentence-transformers where it is installed, because
that is what users of the folder will do.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def main(folder: str, result: str) -> None:
    """Encode the texts as queries and as documents and save both."""
    texts = json.load(sys.stdin)
    if importlib.util.find_spec("sentence_transformers") is not None:
        vectors = _with_sentence_transformers(folder, texts)
    else:
        vectors = _with_embedtrain(folder, texts)
    np.savez(Path(result), query=vectors[0], document=vectors[1])


def _with_sentence_transformers(folder: str, texts: Sequence[str]) -> list[np.ndarray]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    return [np.asarray(model.encode_query(texts)), np.asarray(model.encode_document(texts))]


def _with_embedtrain(folder: str, texts: Sequence[str]) -> list[np.ndarray]:
    from embedtrain.models.build import load_dense
    from embedtrain.models.encoding import encode_texts

    model = load_dense(folder, packing="padded")
    return [encode_texts(model, texts, "query"), encode_texts(model, texts, "document")]


if __name__ == "__main__":
    main(*sys.argv[1:])
