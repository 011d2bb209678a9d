"""A model as tasks see it: texts in, vectors, pair scores and search results out, every vector made once."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Float64

from embedtrain.contract.texts import Contract
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import EvaluatedModel
from embedtrain.interaction_types import Interaction, JointNetwork
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import interaction_of, refuse_interaction
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.ops.interaction import interaction_pairs
from embedtrain.ops.similarity import pair_scores
from embedtrain.precision import Chosen, Precision, choose
from embedtrain.retrieval.compression import Compression
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.indexes import Built, Kind, build
from embedtrain.retrieval.search import search
from embedtrain.section import Section
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenEmbeddings, TokenVectors

PerPair = Float64[np.ndarray, " pairs"]

Vectors = Float32[np.ndarray, "texts dim"] | TokenVectors | SparseVectors
Role = Literal["query", "document", "symmetric"]
"""``symmetric`` is for texts that are compared with their like: the query's prompt, the longer length."""
PAIRS_AT_ONCE = 1024


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    Args:
        model: The encoder.
        name: Where it came from; goes into results.
        cache: Folder of caches. Vectors are kept there by a hash of weights, contract and texts, so an
            evaluation that was killed goes on, and no two checkpoints share any.
        compression: How vectors are cut and, in retrieval, stored.
        instruction: Name of the instruction that the model was loaded under; goes into results.
        precision: What the network computes in; goes into results where it is not fp32.
        shard: This process among several that encode together; each must ask for the same vectors.
        index: How documents are searched, of :func:`embedtrain.retrieval.indexes.read_index`; None searches
            exactly, as ``compression`` says. Goes into results.
        pruning: What was left out of the corpus; goes into results.
    """

    model: TextEncoder
    name: str
    cache: Path
    compression: Compression = field(default_factory=Compression)
    instruction: str | None = None
    precision: Precision = "auto"
    shard: Shard = field(default_factory=Shard)
    index: Section | None = None
    pruning: str = ""
    _built: dict[Role, tuple[Sequence[str], Built]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def chosen(self) -> Chosen:
        """The precision that ``auto`` stands for."""
        return choose(self.precision, self.model.device.type)

    @property
    def is_dense(self) -> bool:
        """Whether a text has one vector."""
        return isinstance(self.model, DenseEncoder)

    @property
    def kind(self) -> Kind:
        """What its vectors are."""
        return kind_of(self.model)

    @cached_property
    def key(self) -> str:
        """A hash of the weights, the tokenizer and the contract."""
        return model_key(self.model)

    def identity(self) -> EvaluatedModel:
        """Name the model by its hash."""
        settings = self.compression.model_dump(exclude_defaults=True)
        if self.instruction is not None:
            settings["instruction"] = self.instruction
        if self.chosen != "fp32":
            settings["precision"] = self.chosen
        if self.index is not None:
            settings["index"] = self.index.model_dump()
        if self.pruning:
            settings["keep"] = self.pruning
        return EvaluatedModel(name=self.name, weights=self.key, settings=settings)

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        """Return the vectors of texts, from the cache where it has them, cut where that is wished."""
        normalized = self.model.contract.similarity == "cosine"
        return self.compression.cut(self._encode_whole(texts, role), normalized=normalized)

    def _encode_whole(self, texts: Sequence[str], role: Role) -> Vectors:
        model, key = self.model, self.key
        if role == "symmetric":
            model, key = symmetric_view(model), f"{key} symmetric"
        side: Literal["query", "document"] = "query" if role == "query" else "document"
        return embed_once(
            model, key, texts, side, self.cache, shard=self.shard, precision=self.chosen
        )

    def features(self, texts: Sequence[str], task: str) -> Float32[np.ndarray, "texts dim"]:
        """Return one vector per text, for tasks that cannot do with several.

        Raises:
            UserError: If the model has several, or a sparse one.
        """
        vectors = self.encode(texts, "symmetric")
        if not isinstance(vectors, np.ndarray):
            raise UserError(
                f"a task of {task}",
                "needs one vector of plain numbers per text, which this model does not make",
                got=self.name,
                cure="Evaluate it on retrieval, reranking, sts, pair_classification or bitext_mining",
            )
        return vectors

    def search(
        self, queries: Sequence[str], documents: Sequence[str], num_results: int, role: Role
    ) -> SearchResult:
        """Return the best documents of each query; ``role`` is that of the queries.

        With the role ``symmetric`` a dense model encodes documents as it does queries.
        """
        other: Role = "symmetric" if role == "symmetric" and self.is_dense else "document"
        first = self.encode(queries, role if self.is_dense else "query")
        return self.find(first, documents, num_results, other)

    def find(
        self, first: Vectors, documents: Sequence[str], num_results: int, role: Role = "document"
    ) -> SearchResult:
        """Return the best documents of vectors of queries; ``role`` is that of the documents."""
        interaction = interaction_of(self.model)
        if self.index is not None:
            return self.built(documents, role).index.search(first, num_results)
        vectors = self.encode(documents, role)
        if self.compression != Compression():
            refuse_interaction(self.model, "--dim and --quantize")
        elif interaction is not None:
            return search(first, vectors, num_results, interaction, self.model.device)
        return self.compression.index(vectors, self.model.device).search(first, num_results)

    def built(self, documents: Sequence[str], role: Role = "document") -> Built:
        """Return the index over documents that ``index`` describes; the last one is kept.

        Raises:
            UserError: If the model scores pairs by a network, which no index follows.
        """
        refuse_interaction(self.model, "--index")
        if role not in self._built or self._built[role][0] is not documents:
            self._built.clear()
            vectors = self.encode(documents, role)
            self._built[role] = documents, build(vectors, self.index, self.model.device)
        return self._built[role][1]

    def answer_by(self, documents: Sequence[str], built: Built) -> None:
        """Let an index that was made elsewhere answer for documents."""
        self._built["document"] = documents, built

    def similarities(self, first: Sequence[str], second: Sequence[str]) -> PerPair:
        """Compare texts with their like, pair by pair.

        A dense model uses its own similarity. Late interaction averages both directions of MaxSim, each
        over the vectors of the text that plays the query, so that long texts are not similar to all. A sparse model
        averages both directions of its inner product, and one whose queries are no vectors both directions of its score.
        """
        interaction = interaction_of(self.model)
        if interaction is not None and not isinstance(interaction, JointNetwork):
            there, back = (
                self._interaction(interaction, *both) for both in ((first, second), (second, first))
            )
            halved: PerPair = (there + back) / 2
            return halved
        if self.is_dense:
            one, other = (self.encode(texts, "symmetric") for texts in (first, second))
            assert isinstance(one, np.ndarray)
            assert isinstance(other, np.ndarray)
            if interaction is not None:
                return _interaction_similarities(interaction, one, other)
            products: PerPair = np.vecdot(one.astype(np.float64), other.astype(np.float64))
            return products
        both: PerPair = self._one_way(first, second) + self._one_way(second, first)
        return both / 2

    def _interaction(
        self, interaction: Interaction, queries: Sequence[str], documents: Sequence[str]
    ) -> PerPair:
        asked, answers = self.encode(queries, "query"), self.encode(documents, "document")
        assert isinstance(asked, np.ndarray)
        assert isinstance(answers, np.ndarray)
        query, document = torch.from_numpy(asked.copy()), torch.from_numpy(answers.copy())
        found = interaction_pairs(interaction, query, document, torch.arange(len(asked)))
        values: PerPair = found.double().numpy()
        return values

    def _one_way(self, queries: Sequence[str], documents: Sequence[str]) -> PerPair:
        asked, answers = self.encode(queries, "query"), self.encode(documents, "document")
        if isinstance(asked, SparseVectors) and isinstance(answers, SparseVectors):
            return asked.products(answers)
        assert isinstance(asked, TokenVectors)
        assert isinstance(answers, TokenVectors)
        scores = [
            _pair_scores(
                asked.part(start, start + PAIRS_AT_ONCE).tensors(),
                answers.part(start, start + PAIRS_AT_ONCE).tensors(),
            )
            for start in range(0, len(queries), PAIRS_AT_ONCE)
        ]
        per_vector: PerPair = np.concatenate(scores) / asked.lengths
        return per_vector


def kind_of(model: TextEncoder) -> Kind:
    """Return what the vectors of a model are."""
    if isinstance(model, DenseEncoder):
        return "dense"
    return "sparse" if isinstance(model, SparseEncoder) else "late_interaction"


@torch.no_grad()
def _interaction_similarities(
    interaction: Interaction,
    first: Float32[np.ndarray, "pairs dim"],
    second: Float32[np.ndarray, "pairs dim"],
) -> PerPair:
    """Return the mean of both orders, for neither text of a pair is the query."""
    one, other = torch.from_numpy(first.copy()), torch.from_numpy(second.copy())
    cpu, rows = interaction.to("cpu"), torch.arange(len(first))
    both = [
        interaction_pairs(cpu, query, document, rows, "similarity")
        for query, document in ((one, other), (other, one))
    ]
    values: PerPair = torch.stack(both).double().mean(0).numpy()
    return values


def _pair_scores(queries: TokenEmbeddings, documents: TokenEmbeddings) -> PerPair:
    with torch.no_grad():
        scores = pair_scores(queries, documents, torch.arange(len(queries)))
    values: PerPair = scores.double().numpy()
    return values


def symmetric_view(model: TextEncoder) -> TextEncoder:
    """Return the model, the same weights, whose documents get the query's prompt and the longer length.

    A query length of a few words would cut the documents that are to be clustered or classified. Late
    interaction is left alone: its query length is also the number of its expansion tokens.
    """
    contract = model.contract
    if not isinstance(contract, Contract):
        return model
    framing = contract.framing
    if framing is not None:
        framing = framing.model_copy(update={"document_suffix": framing.query_suffix})
    return _with_contract(
        model,
        framing=framing,
        document_prompt=contract.query_prompt,
        document_length=max(contract.query_length, contract.document_length),
        adapters=contract.adapters and contract.adapters.alike,
        document_model="",  # texts are compared with their like, so one model encodes them all
    )


def with_prompts(model: TextEncoder, query: str, document: str) -> TextEncoder:
    """Return the model, the same weights, with other prompts.

    Raises:
        UserError: If its texts stand in several frames, which have prompts of their own.
    """
    framing = model.contract.framing if isinstance(model.contract, Contract) else None
    if framing is not None and framing.prompts:
        raise UserError("--prompts", "does not go with a model of several prompts")
    return _with_contract(model, query_prompt=query, document_prompt=document)


def _with_contract(model: TextEncoder, **changes: object) -> TextEncoder:
    view = copy.copy(model)
    view.contract = model.contract.model_copy(update=changes)
    return view
