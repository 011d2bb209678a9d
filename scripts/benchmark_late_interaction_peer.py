"""One training step of PyLate or sentence-transformers, measured; run by benchmark_late_interaction.py.

Imports nothing of embedtrain: PyLate lives in an environment of its own.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmark_measure import measure_step


def pylate_loss(folder: str, *, cached: bool) -> tuple[Any, Callable[[list[str], bool], Any]]:
    """Return PyLate's contrastive loss and how its collator tokenises: padded to the full length."""
    from pylate import losses, models

    model = models.ColBERT(folder, device="cpu").train()
    kind = losses.CachedContrastive if cached else losses.Contrastive
    return kind(model), lambda texts, is_query: model.tokenize(texts, is_query=is_query, pad=True)


def sentence_transformers_loss(
    folder: str, *, cached: bool
) -> tuple[Any, Callable[[list[str], bool], Any]]:
    """Return sentence-transformers' loss and how it tokenises: padded to the longest text."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.multi_vector_encoder import losses

    model = MultiVectorEncoder(folder, device="cpu").train()
    name = "MultiVectorMultipleNegativesRankingLoss"
    loss = getattr(losses, f"Cached{name}" if cached else name)(model)

    def tokenize(texts: list[str], is_query: bool) -> dict[str, Any]:
        task = "query" if is_query else "document"
        return model.preprocess(texts, prompt=model.prompts.get(task), task=task)

    return loss, tokenize


LOSSES = {"pylate": pylate_loss, "sentence-transformers": sentence_transformers_loss}


def main() -> None:
    """Measure one step on all pairs, after a small one."""
    library, mode, folder, pairs_file = sys.argv[1:]
    loss_of, tokenize = LOSSES[library](folder, cached=mode == "saving")
    for module in loss_of.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(loss_of.parameters(), lr=1e-5, fused=True)
    pairs = json.loads(Path(pairs_file).read_text(encoding="utf-8"))
    losses = []

    def prepared(pairs: list[list[str]]) -> Callable[[], None]:
        features = [tokenize([pair[place] for pair in pairs], place == 0) for place in (0, 1)]

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bf16"):
                loss = loss_of(features, None)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())

        return step

    prepared(pairs[:4])()
    measured = measure_step(prepared(pairs))
    print(json.dumps({**measured._asdict(), "loss": losses[-1]}))


if __name__ == "__main__":
    main()
