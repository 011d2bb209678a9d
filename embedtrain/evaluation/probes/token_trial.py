"""Insert tokens into one text of a pair and see what becomes of their distance."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64
from numpy.typing import NDArray

from embedtrain.contract.texts import join_texts
from embedtrain.evaluation.measures.diagnostics import mean_cosine
from embedtrain.models.backbone.special_ends import special_ends
from embedtrain.models.chunking import Execution
from embedtrain.models.encoder import TextEncoder
from embedtrain.ops.similarity import pair_scores
from embedtrain.types import TokenEmbeddings

Ids = NDArray[np.int32]
UNLIKE_PAIRS = 5
"""Pairs that every token is tried on."""
TEXTS_AT_ONCE = 4096


@dataclass(frozen=True)
class Pair:
    """A text that tokens are inserted into, another one, and their distance before."""

    changed: Ids
    other: int
    distance: float


class Trial:
    """Sentences of a model and what becomes of their distances.

    Sentences are token ids, encoded as documents.
    """

    def __init__(self, model: TextEncoder, sentences: list[Ids], rng: np.random.Generator) -> None:
        self.model = model
        self.sentences = sentences
        self.rng = rng
        self.ends = special_ends(model.tokenizer, model.contract.prompt("document"))
        self.vectors = self._embed(sentences)
        first, second = np.triu_indices(len(sentences), k=1)
        self.first, self.second = first, second
        self.similarities = self._similarities(self.vectors, first, second)

    def unlike_pairs(self) -> list[Pair]:
        """Return pairs below the mean similarity of the model's tokens, spread evenly over the lower 80 %.

        Where there are fewer, the median of all pairs takes its place.
        """
        bound = mean_token_cosine(self.model)
        lowest = float(self.similarities.min())
        if (self.similarities < bound).sum() < UNLIKE_PAIRS:
            bound = float(np.median(self.similarities))
        wanted = np.linspace(lowest, lowest + 0.8 * (bound - lowest), UNLIKE_PAIRS)
        chosen: list[int] = []
        for target in wanted:
            order = np.argsort(np.abs(self.similarities - target), kind="stable")
            chosen.append(next(int(place) for place in order if place not in chosen))
        return [self._pair(place) for place in chosen]

    def random_pairs(self, count: int) -> list[Pair]:
        """Draw pairs among all."""
        total = len(self.similarities)
        places = self.rng.choice(total, size=min(count, total), replace=False)
        return [self._pair(int(place)) for place in places]

    def changes(
        self,
        tokens: Sequence[int],
        pairs: list[Pair],
        places: Sequence[str],
        repeats: Sequence[int],
    ) -> Float64[np.ndarray, "tokens pairs places repeats"]:
        """Return by how much each insertion changes the distance of a pair."""
        rows, others, before = [], [], []
        for token, pair, place, count in product(tokens, pairs, places, repeats):
            rows.append(self._inserted(pair.changed, token, place, count))
            others.append(pair.other)
            before.append(pair.distance)
        distances = []
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            vectors, chosen = self._embed(rows[part]), np.asarray(others[part])
            own = np.arange(len(chosen))
            distances.append(1 - self._similarities(vectors, own, chosen, self.vectors))
        shape = (len(tokens), len(pairs), len(places), len(repeats))
        found: Float64[np.ndarray, "tokens pairs places repeats"] = (
            np.concatenate(distances) - np.asarray(before)
        ).reshape(shape)
        return found

    def _pair(self, place: int) -> Pair:
        changed, other = int(self.first[place]), int(self.second[place])
        return Pair(self.sentences[changed], other, 1 - float(self.similarities[place]))

    def _inserted(self, ids: Ids, token: int, place: str, count: int) -> Ids:
        before, behind = self.ends
        last = len(ids) - behind
        if place == "random":
            places = self.rng.integers(before, last + 1, size=count)
        else:
            places = np.full(count, before if place == "front" else last)
        return np.insert(ids, places, token)

    @torch.no_grad()
    def _embed(self, rows: list[Ids]) -> torch.Tensor | TokenEmbeddings:
        training = self.model.training
        self.model.eval()
        try:
            found = self.model.embed(
                join_texts(rows).to(self.model.device), Execution(), "document"
            )
        finally:
            self.model.train(training)
        return (
            F.normalize(found.float(), dim=-1).cpu()
            if isinstance(found, torch.Tensor)
            else found.to("cpu")
        )

    def _similarities(
        self,
        first: torch.Tensor | TokenEmbeddings,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        second: torch.Tensor | TokenEmbeddings | None = None,
    ) -> Float64[np.ndarray, " pairs"]:
        """Compare rows of the first with rows of the second, or of the first again."""
        second = first if second is None else second
        one, other = torch.from_numpy(rows), torch.from_numpy(columns)
        if isinstance(first, torch.Tensor):
            assert isinstance(second, torch.Tensor)
            products: Float64[np.ndarray, " pairs"] = (
                (first[one].double() * second[other].double()).sum(dim=1).numpy()
            )
            return products
        assert isinstance(second, TokenEmbeddings)
        queries, documents = first.select(one), second.select(other)
        places = torch.arange(len(one))
        there = pair_scores(queries, documents, places).double() / queries.lengths
        back = pair_scores(documents, queries, places).double() / documents.lengths
        both: Float64[np.ndarray, " pairs"] = ((there + back) / 2).numpy()
        return both


def usable_tokens(model: TextEncoder) -> list[int]:
    """Return the tokens that are not special and that their own text gives back."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ordinary = [token for token in range(len(tokenizer)) if token not in special]
    texts = tokenizer.batch_decode([[token] for token in ordinary])
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [token for token, ids in zip(ordinary, encoded, strict=True) if ids == [token]]


def mean_token_cosine(model: TextEncoder) -> float:
    """Return the mean cosine of all pairs of the model's input embeddings."""
    table = model.backbone.get_input_embeddings().weight.detach().double()
    return float(mean_cosine(table[table.norm(dim=1) > 0]))
