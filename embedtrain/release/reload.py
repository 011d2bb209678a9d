"""Encode texts with a model folder in a process of its own: ``python -m embedtrain.release.reload FOLDER OUT.npz``.

Reads a JSON list of texts from standard input, or of pairs for a cross-encoder. Uses sentence-transformers where it is installed, because
that is what users of the folder will do.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.contract.pair_contract import PairContract
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.backbone.folder_files import SettingsFile, read_form
from embedtrain.models.build import load_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.cross_encoder.resolving import is_cross_encoder
from embedtrain.models.dense.layout import is_own_layout, read_contract
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.layout import KIND as SPARSE
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Side, TokenVectors


def main(folder: str, result: str) -> None:
    """Encode the texts as queries and as documents and save both, or the scores of pairs."""
    texts = json.load(sys.stdin)
    if is_cross_encoder(Path(folder)):
        np.savez(Path(result), allow_pickle=False, scores=_scores(folder, texts))
        return
    own = not (Path(folder) / "modules.json").is_file() or is_own_layout(Path(folder))
    if own or importlib.util.find_spec("sentence_transformers") is None:
        vectors = _with_embedtrain(folder, texts)
    else:
        vectors = _with_sentence_transformers(folder, texts)
    named = {
        f"{side}{number}": array
        for side, arrays in zip(("query", "document"), vectors, strict=True)
        for number, array in enumerate(arrays)
    }
    np.savez(Path(result), allow_pickle=False, **named)


def as_arrays(
    vectors: NDArray[np.float32] | TokenVectors | SparseVectors,
) -> list[NDArray[np.float32]]:
    """Return what must survive a round trip: one vector per text, or those of all tokens."""
    if isinstance(vectors, SparseVectors):
        return [vectors.dense()]
    if isinstance(vectors, np.ndarray):
        return [vectors]
    return [vectors.values] if vectors.cls is None else [vectors.values, vectors.cls]


def probe_vectors(
    model: TextEncoder, texts: Sequence[str], side: Side
) -> list[NDArray[np.float32]]:
    """Return the vectors of a few texts, a sparse model's with all their zeros."""
    return as_arrays(encode_texts(model, texts, side, precision="fp32"))


def _scores(folder: str, pairs: Sequence[Sequence[str]]) -> np.ndarray:
    contract = read_contract(Path(folder), PairContract)
    known = importlib.util.find_spec("sentence_transformers") is not None
    if known and contract is not None and _is_theirs(contract):
        import sentence_transformers

        reader = sentence_transformers.CrossEncoder(folder, device="cpu")
        plain = torch.nn.Identity()  # what stands in config.json is for users
        return np.asarray(reader.predict(list(map(tuple, pairs)), activation_fn=plain), np.float64)
    model = load_cross_encoder(folder, packing="padded").eval()
    with torch.no_grad():
        joined = model.pairs_of([(query, document) for query, document in pairs]).to(model.device)
        return model.values(joined, Execution()).cpu().double().numpy()


def _is_theirs(contract: PairContract) -> bool:
    """Whether sentence-transformers puts around a pair what the contract does, and has the model."""
    return contract.answer_start is None and (contract.template is None or bool(contract.answers))


def _with_sentence_transformers(folder: str, texts: Sequence[str]) -> list[list[np.ndarray]]:
    import sentence_transformers

    path = Path(folder) / "config_sentence_transformers.json"
    kind, model = read_form(path, SettingsFile, optional=True).model_type, cast("Any", None)
    late = kind == "ColBERT"
    if kind == SPARSE:
        model = sentence_transformers.SparseEncoder(folder, device="cpu")
        sides = model.encode_query(texts), model.encode_document(texts)
        return [[side.to_dense().numpy()] for side in sides]
    if late:
        from sentence_transformers.multi_vector_encoder import MultiVectorEncoder

        model = MultiVectorEncoder(folder, device="cpu")
    else:
        model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    both = (model.encode_query(texts), model.encode_document(texts))
    join = np.concatenate if late else np.stack
    return [[join([np.asarray(text) for text in side])] for side in both]


def _with_embedtrain(folder: str, texts: Sequence[str]) -> list[list[np.ndarray]]:
    model = load_encoder(folder, packing="padded")
    sides: tuple[Side, Side] = ("query", "document")
    return [probe_vectors(model, texts, side) for side in sides]


if __name__ == "__main__":
    main(*sys.argv[1:])
