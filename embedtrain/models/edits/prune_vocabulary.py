"""Take entries out of a model's vocabulary: of its tokenizer and of its table of words alike."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder, write_json
from embedtrain.models.backbone.loading import position_offset
from embedtrain.models.backbone.pretrained import read_tokenizer
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.edits.prune_tokenizer import Content, close_over, prune_tokenizer
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder

OF_TOKENS = ("pad", "bos", "eos", "cls", "sep", "mask", "unk", "decoder_start")
"""A config's ``pad_token_id`` and so on."""
SLOW_FILES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""The vocabulary as other readers take it: they would read the old ids."""


def tokenizer_file(model: TextEncoder) -> Content:
    """Return the ``tokenizer.json`` of a model, without what the last call cut or filled up to."""
    backend = model.tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    content: Content = json.loads(backend.to_str())
    return content


def check_prunable(model: TextEncoder) -> None:
    """Refuse models whose vectors have a coordinate per word, or whose language head is part of them.

    Raises:
        UserError: With what to name instead.
    """
    plain = isinstance(model, DenseEncoder) and model.words is None and model.query_gate is None
    if not plain and not isinstance(model, LateInteractionEncoder):
        raise UserError(
            "MODEL", "has coordinates or weights for each word, which an index or a head relies on",
            cure="Name a dense or late-interaction model",
        )  # fmt: skip


def prune_vocabulary(model: TextEncoder, used: list[int]) -> list[int]:
    """Leave a model what texts of the entries ``used`` need; changes the model it is given.

    Args:
        model: One that :func:`check_prunable` lets pass.
        used: Ids of entries.

    Returns:
        The ids that stayed, by their new ones.
    """
    check_prunable(model)
    content = tokenizer_file(model)
    kept = close_over(content, {*used, *_own_tokens(model)})
    places = {old: new for new, old in enumerate(kept)}
    before = position_offset(model.backbone.config)
    _keep_rows(model.backbone, kept, places)
    # RoBERTa counts positions from its padding id.
    assert position_offset(model.backbone.config) == before, "every special token stayed"
    model.tokenizer = _rebuilt(model.tokenizer, prune_tokenizer(content, kept), places)
    return kept


def _own_tokens(model: TextEncoder) -> set[int]:
    """Return the entries that the model itself names, beside those of texts."""
    found = set(model.tokenizer.all_special_ids)
    if isinstance(model.contract, LateInteractionContract):
        words = [*model.contract.skiplist, *model.contract.markers]
        for ids in model.tokenizer(words, add_special_tokens=False)["input_ids"] if words else ():
            found |= set(ids)
    return found


def _keep_rows(backbone: Any, kept: list[int], places: dict[int, int]) -> None:  # noqa: ANN401 - transformers is untyped
    """Keep the rows of the table of words, and renumber what the config says of entries."""
    is_table = isinstance(backbone, WordTable)
    table = backbone.rows if is_table else backbone.get_input_embeddings()
    rows = table.weight.detach()[torch.tensor(kept, device=table.weight.device)].clone()
    padding = None if table.padding_idx is None else places.get(table.padding_idx)
    config = backbone.config
    config.vocab_size, table.num_embeddings = len(kept), len(kept)
    table.weight, table.padding_idx = nn.Parameter(rows), padding
    if not is_table:  # other names of the same table, as T5 has them
        backbone.set_input_embeddings(table)
    for name in OF_TOKENS:
        key = f"{name}_token_id"
        old = getattr(config, key, None)
        if isinstance(old, int):
            setattr(config, key, places.get(old))
        elif isinstance(old, list):
            setattr(config, key, [places[number] for number in old if number in places])


def _rebuilt(tokenizer: Any, content: Content, places: dict[int, int]) -> Any:  # noqa: ANN401 - transformers is untyped
    """Return the tokenizer of another ``tokenizer.json``, with all else that its folder says."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        appearing_folder(Path(scratch) / "tokenizer") as folder,  # says what a full disk is
    ):
        tokenizer.save_pretrained(folder)
        for name in SLOW_FILES:
            (folder / name).unlink(missing_ok=True)
        write_json(folder / "tokenizer.json", content)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        added = settings.get("added_tokens_decoder")
        if added is not None:
            settings["added_tokens_decoder"] = {
                str(places[int(number)]): token for number, token in added.items()
            }
        write_json(path, settings)
        return read_tokenizer(folder)
