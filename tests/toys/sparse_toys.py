"""Tiny masked-language models, sparse encoders around them, and what they should give."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from forks import fork

if TYPE_CHECKING:
    from embedtrain.models.sparse.code_head import CodeHead
    from embedtrain.models.sparse.encoder import SparseEncoder

TEXTS = ["the cat runs", "a dog sleeps near the tree", "small red house over the blue bird"]


def save_masked_model(folder: Path, bert: str, *, exact: bool = False) -> str:
    """Save a model with more rows than its tokenizer has tokens, or with exactly as many."""
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bert)
    size = {"vocab_size": len(tokenizer)} if exact else {}
    model = BertForMaskedLM(BertConfig.from_pretrained(bert, **size))
    with torch.no_grad():  # about half of the words get weight
        model.cls.predictions.transform.dense.weight.mul_(20)
        model.cls.predictions.decoder.bias.normal_(std=0.3).sub_(0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def sparse_encoder(folder: str, **settings: object) -> "SparseEncoder":
    from embedtrain.models.build import build_encoder
    from embedtrain.models.sparse.config import SparseConfig

    sides = {"query": {"length": 12}, "document": {"length": 16}}
    config = SparseConfig.model_validate({"kind": "sparse", "backbone": folder, **sides} | settings)
    return build_encoder(config).eval()


@torch.no_grad()
def weights_of(model: "SparseEncoder", texts: list[str], side: str = "document") -> torch.Tensor:
    from embedtrain.models.chunking import Execution

    return model.embed(model.tokenization.encode(texts, side), Execution(), side)


@torch.no_grad()
def logits_of(model: "SparseEncoder", text: str) -> torch.Tensor:
    """The logits of all tokens, by the whole model of transformers."""
    model.use_padded_attention()
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    return model.head.language.model(input_ids=ids).logits[0]


def code_head(dictionary: torch.Tensor, kept: int) -> "CodeHead":
    """A code without biases over the vectors of a model that is not there."""
    from embedtrain.contract.sparse_contract import Code
    from embedtrain.models.sparse.code_head import CodeHead

    entries, width = dictionary.shape
    head = CodeHead(width, Code(entries=entries, kept=kept), "mean", None, normalized=False)
    head.dictionary.data = dictionary.detach().clone()
    return head


def check_sentence_transformers(models: Mapping[str, "SparseEncoder"], folder: Path) -> None:
    """Both libraries give the same numbers, from the folders that either writes.

    Version 5, where ``PYTHONPATH`` has it, neither reads nor writes how many entries are kept.
    """
    from embedtrain.models.build import load_encoder, save_encoder

    knows_kept = not version("sentence-transformers").startswith("5.")

    for name, model in models.items():
        save_encoder(model, folder / name)

    def read() -> None:
        from sentence_transformers import SparseEncoder

        out = {}
        for name in models:
            said = {} if knows_kept else {"max_active_dims": models[name].contract.query_top_k}
            model = SparseEncoder(str(folder / name), device="cpu", **said)
            both = model.encode_query(TEXTS), model.encode_document(TEXTS)
            for side, found in zip(("query", "document"), both, strict=True):
                out[name + side] = found.to_dense().numpy()
            model.save_pretrained(str(folder / f"{name}-native"))
        np.savez(folder / "out.npz", **out)

    done = fork(read)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as theirs:
        for name, model in models.items():
            native = load_encoder(str(folder / f"{name}-native")).eval()
            for side in ("query", "document"):
                found = torch.from_numpy(theirs[name + side])
                for one in (
                    model,
                    native if knows_kept or not model.contract.query_top_k else model,
                ):
                    ours = weights_of(one, TEXTS, side)
                    torch.testing.assert_close(ours, found, atol=1e-6, rtol=1e-6)
