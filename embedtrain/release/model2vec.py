"""Workflow: a table of words in the form of model2vec, read back before it stays."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, write_file, write_json
from embedtrain.locks import owns
from embedtrain.models.backbone.files import read_weights, write_weights
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.build import load_model
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.release.cards.graphs import card_with_model2vec
from embedtrain.release.export import PROBES, card_of
from embedtrain.release.fidelity import distance

FOLDER = "model2vec"
MOST = 1e-6
"""Cosine distance of a text's vector."""


@owns("folder")
def export_model2vec(folder: Path) -> Path:
    """Write ``model2vec/`` into a model folder, and into its card how to load it. Prompts are its reader's business.

    Raises:
        UserError: If the model is no table of words, or means more than the mean of rows, or it reads back otherwise.
    """
    model = load_model(str(folder))
    encoder = check_table(model, folder)
    table: Any = encoder.backbone
    with appearing_folder(folder / FOLDER) as building:
        write_weights(building / "model.safetensors", {"embeddings": table.rows.weight.cpu()})
        encoder.tokenizer.backend_tokenizer.save(str(building / "tokenizer.json"))
        config = {
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "hidden_dim": table.rows.embedding_dim,
            "seq_length": 1_000_000,
            "max_length": None,
            "normalize": True,
            "embedding_dtype": "float32",
        }
        write_json(building / "config.json", config)
        modules = [("0", ".", "StaticEmbedding"), ("1", "1_Normalize", "Normalize")]
        write_json(building / "modules.json", [
            {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for name, path, kind in modules
        ])  # fmt: skip
        _read_back(encoder, building)
    card = card_of(folder)
    if card is not None:
        write_file(folder / "README.md", card_with_model2vec(card, encoder.contract, FOLDER))
    return folder / FOLDER


def check_table(model: TextModel, folder: Path) -> DenseEncoder:
    """Return the model if the mean of its table's rows gives its vectors.

    Raises:
        UserError: Saying what there is no place for.
    """
    if not isinstance(model, DenseEncoder) or not isinstance(model.backbone, WordTable):
        raise UserError(
            folder, "is no table of words, and --model2vec has no place for others",
            cure="Make one by `embedtrain static` first",
        )  # fmt: skip
    if model.projection is not None:
        raise _refused(folder, "a layer behind the mean")
    if model.contract.similarity != "cosine":
        raise _refused(folder, f"the similarity {model.contract.similarity}")
    unknown = model.tokenizer.backend_tokenizer.model
    named = getattr(unknown, "unk_token", None)
    if named is not None and model.backbone.rows.padding_idx is None:
        raise _refused(folder, "a vector for unknown words")
    return model


def _refused(folder: Path, what: str) -> UserError:
    return UserError(
        folder, f"has {what}, for which model2vec has no place", cure="Leave --model2vec out"
    )


def _read_back(model: DenseEncoder, folder: Path) -> None:
    """Take means of rows as model2vec does, of words that are known, and compare.

    Raises:
        UserError: If a vector is another.
    """
    rows = read_weights(folder / "model.safetensors")["embeddings"].numpy()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")
    prompt = model.contract.document_prompt
    ours = encode_texts(model, PROBES, "document", precision="fp32")
    for text, vector in zip(PROBES, ours, strict=True):
        ids = tokenizer.encode(prompt + text, add_special_tokens=False).ids
        known = rows[[one for one in ids if one != unknown]]
        mean = known.mean(axis=0) if len(known) else np.zeros(rows.shape[1], np.float32)
        if distance(vector[None], mean[None]) > MOST:
            raise UserError(folder, "gives another vector", got=text, cure="Please report this")
