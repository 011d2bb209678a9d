"""A guide: embeddings of a second model for every text of the training data, looked up by text id."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from pydantic import model_validator
from torch import Tensor

from embedtrain.data.examples import SourceConfig, text_id
from embedtrain.data.guide_texts import guide_texts
from embedtrain.data.sources import open_source
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.progress import console
from embedtrain.section import Count, Section
from embedtrain.types import GuideEmbeddings, RetrievalOutputs, Side

BOTH: tuple[Side, ...] = ("query", "document")


class GuideConfig(Section):
    """A second model that judges the batch and is not trained; it encodes the data once, before training."""

    model: str
    """Model folder or Hub id, with its own tokenizer, prompts and lengths; one vector per text."""
    dim: Count | None = None
    """Show so many principal components of its vectors instead of the vectors (projective distillation)."""
    normalize: bool = True
    """Normalise these components, as students of cosines are; false shows them as they are."""
    encodes_documents: bool = False
    """Let the trained model encode queries alone: it names the guide for documents, whose index stays (LEAF's asymmetric use)."""

    @model_validator(mode="after")
    def _has_components(self) -> "GuideConfig":
        if not self.normalize and self.dim is None:
            raise ValueError("normalize: false is of components: set dim, or drop it")
        return self


@dataclass(frozen=True)
class StoredVectors:
    """Vectors mapped from a file, found by the ids of their texts.

    ``ids`` is sorted; ``rows[i]`` is where the vector of ``ids[i]`` stands.
    """

    ids: Int64[np.ndarray, " texts"]
    rows: Int64[np.ndarray, " texts"]
    values: Float32[np.ndarray, "texts dim"]

    @classmethod
    def of(
        cls, model: DenseEncoder, texts: Mapping[int, str], side: Side, cache: Path
    ) -> "StoredVectors":
        """Encode texts, named by their ids, or take their vectors from the cache."""
        values = embed_once(model, model_key(model), list(texts.values()), side, cache)
        assert isinstance(values, np.ndarray)
        ids = np.array(list(texts), dtype=np.int64)
        order = np.argsort(ids)
        return cls(ids[order], order, values)

    def look_up(self, ids: Int64[Tensor, " wanted"]) -> Float[Tensor, "wanted dim"]:
        """Return the vectors of texts; all of them must be there."""
        wanted = ids.cpu().numpy()
        places = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        assert (self.ids[places] == wanted).all(), "every text of the data was encoded"
        return torch.from_numpy(np.array(self.values[self.rows[places]])).to(ids.device)


@dataclass(frozen=True)
class Guide:
    """The guide's vectors of all queries and documents; every rank holds them, so none are gathered."""

    queries: StoredVectors
    documents: StoredVectors
    components: Float32[Tensor, "components dim"] | None = None
    """Directions that vectors are projected on; None shows them whole."""
    normalize: bool = True
    """Normalise what lies along them."""

    def __call__(self, outputs: RetrievalOutputs, sides: Sequence[Side] = BOTH) -> GuideEmbeddings:
        """Return the guide's view of a batch, gathered or not; zeros of a side that is not among ``sides``."""
        relevance, everyone = outputs.relevance, outputs.all_queries
        ids = relevance.document_guide_ids
        ids = relevance.document_ids if ids is None else ids
        found = {}
        if "query" in sides:
            found["query"] = self._queries(relevance.query_ids, relevance.query_guide_ids)
        if "document" in sides:
            found["document"] = self._show(self._documents(ids))
        read = next(iter(found.values()))
        query, document = (
            found[side] if side in found else read.new_zeros(number, read.shape[1])
            for side, number in (("query", len(relevance.query_ids)), ("document", len(ids)))
        )
        return GuideEmbeddings(
            query,
            document,
            query if everyone is None else self._queries(everyone.ids, everyone.guide_ids),
        )

    def _queries(
        self, own: Int64[Tensor, " queries"], others: Int64[Tensor, " queries"] | None
    ) -> Float[Tensor, "queries shown"]:
        return self._show(self.queries.look_up(own if others is None else others))

    def _documents(self, ids: Int64[Tensor, " documents"]) -> Float[Tensor, "documents dim"]:
        """Return the vectors of documents; ids below 0 are of those that the guide reads as queries."""
        as_query = ids < 0
        if not as_query.any():
            return self.documents.look_up(ids)
        found = self.queries.look_up(torch.where(as_query, ~ids, ids[as_query][0].bitwise_not()))
        if not as_query.all():
            found[~as_query] = self.documents.look_up(ids[~as_query])
        return found

    def _show(self, vectors: Float[Tensor, "texts dim"]) -> Float[Tensor, "texts shown"]:
        """Return the vectors, or their principal components."""
        if self.components is None:
            return vectors
        shown = vectors @ self.components.T.to(vectors.device)
        return F.normalize(shown, dim=1) if self.normalize else shown


def principal_components(
    vectors: Float32[np.ndarray, "texts dim"], count: int
) -> tuple[Float32[Tensor, "components dim"], float]:
    """Return the directions in which vectors vary most, and the share of their variance that lies in them.

    Means are taken away to find the directions, and left in when vectors are projected on them.

    Source: Zhao et al. (2022), https://arxiv.org/abs/2203.13240 (homomorphic projective distillation).
    """
    centred = torch.from_numpy(np.array(vectors, dtype=np.float64))
    centred = centred - centred.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred)
    largest = directions.T.flip(0)[:count]
    share = float(variances[-count:].sum() / variances.sum())
    return largest.float().contiguous(), share


SAMPLE = 40_000
"""Documents that principal components are found on."""


def encode_guide(
    config: GuideConfig,
    sources: tuple[SourceConfig, ...],
    cache: Path,
    sides: Sequence[Sequence[Side]] | None = None,
) -> Guide:
    """Return the guide's vectors of every distinct text; memory holds the texts while it encodes.

    ``sides`` says of each source which are read; None of all that both are.

    Raises:
        UserError: If the guide gives several vectors per text.
    """
    model = load_encoder(config.model)
    if not isinstance(model, DenseEncoder):
        raise UserError(
            "guide.model", "gives several vectors per text", got=config.model,
            cure="Name a model of one vector per text",
        )  # fmt: skip
    refuse_interaction(model, "guide.model")
    texts: dict[Side, dict[int, str]] = {"query": {}, "document": {}}
    for source, read in zip(sources, sides or [BOTH] * len(sources), strict=True):
        for example in open_source(source, cache).examples():
            asked, answers = guide_texts(example, source.columns.guide_text)
            shown: list[tuple[Side, str]] = [("query", asked)] if "query" in read else []
            for side, text in [*shown, *(answers if "document" in read else [])]:
                texts[side].setdefault(text_id(text), text)
    # A side without texts is not read, or is read as the other one.
    stored = {side: StoredVectors.of(model, of, side, cache) for side, of in texts.items() if of}
    documents = stored.get("document") or stored["query"]
    queries = stored.get("query") or documents
    return Guide(queries, documents, _components(config, documents), config.normalize)


def _components(config: GuideConfig, documents: StoredVectors) -> Float32[Tensor, "_ _"] | None:
    """Find the directions that the guide shows, on its first documents."""
    if config.dim is None:
        return None
    sample = np.array(documents.values[:SAMPLE])
    if config.dim > min(sample.shape):
        raise UserError(
            "guide.dim",
            f"is more than {sample.shape[0]} vectors of {sample.shape[1]} dimensions have",
            got=config.dim,
            cure="Lower it",
        )
    found, share = principal_components(sample, config.dim)
    console.print(f"{config.dim} components of the guide hold {share:.1%} of its variance")
    return found
