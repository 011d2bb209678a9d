"""A model as mteb wants it: search for every kind of model, vectors for those with one per text.

Its identity is a hash of its weights, tokenizer and contract. mteb keeps results by name and revision; a
local folder would have neither, and two checkpoints would share one result.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from mteb._create_dataloaders import create_dataloader
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType
from torch import Tensor

from embedtrain.contract.texts import Contract
from embedtrain.evaluation.tasks.reranking import score_candidates
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.evaluation.tasks.subject import Role, Subject, with_prompts

Prompts = Mapping[str, str]
"""mteb's names of prompts, ``"SciFact-query"``, ``"Retrieval-document"``, ``"query"``, to prompts."""


class MtebModel:
    """Implements mteb's ``SearchProtocol``: exact search or MaxSim, through the same code as our own tasks."""

    def __init__(self, subject: Subject, prompts: Prompts | None = None) -> None:
        self.subject = subject
        self.prompts = dict(prompts or {})
        self.used_prompts: dict[str, tuple[str, str]] = {}
        """Task to the prompts of queries and documents that it was given."""
        self._prompted: dict[tuple[str, str], Subject] = {}
        self._corpus: tuple[list[str], list[str]] = ([], [])

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes into results: name, hash of the weights, dimension, lengths."""
        contract = self.subject.model.contract
        dense = isinstance(contract, Contract)
        return ModelMeta(
            loader=None,
            name=f"embedtrain/{_safe_name(self.subject.name)}",
            revision=self.revision,
            release_date=None,
            languages=None,
            n_parameters=sum(values.numel() for values in self.subject.model.parameters()),
            memory_usage_mb=None,
            max_tokens=max(contract.query_length, contract.document_length),
            embed_dim=self.subject.model.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=contract.similarity if dense else "MaxSim",
            use_instructions=False,
            training_datasets=None,
            model_type=["dense" if dense else "late-interaction"],
        )

    @property
    def revision(self) -> str:
        """The hash of weights and contract, and of prompts where some were given."""
        if not self.prompts:
            return self.subject.key[:16]
        import hashlib

        text = repr(sorted(self.prompts.items())) + self.subject.key
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def index(
        self,
        corpus: Any,  # noqa: ANN401 - mteb's types; a datasets.Dataset
        *,
        task_metadata: Any,  # noqa: ANN401
        encode_kwargs: Mapping[str, Any],
        **_: object,
    ) -> None:
        """Remember the corpus; vectors are made, or found in the cache, when queries come."""
        loader = create_dataloader(
            corpus, task_metadata=task_metadata, prompt_type=PromptType.document, **encode_kwargs
        )
        self._corpus = list(corpus["id"]), _texts(loader)

    def search(
        self,
        queries: Any,  # noqa: ANN401
        *,
        task_metadata: Any,  # noqa: ANN401
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, list[str]] | None = None,
        **_: object,
    ) -> dict[str, dict[str, float]]:
        """Rank the corpus, or each query's candidates where the task reranks."""
        loader = create_dataloader(
            queries, task_metadata=task_metadata, prompt_type=PromptType.query, **encode_kwargs
        )
        texts, ids = _texts(loader), list(queries["id"])
        document_ids, documents = self._corpus
        subject = self._subject(task_metadata)
        if top_ranked is None:
            found = subject.search(texts, documents, top_k, "query")
            return as_run(ids, document_ids, found)
        text_of = dict(zip(document_ids, documents, strict=True))
        candidates = {
            query: {document: text_of[document] for document in top_ranked[query]}
            for query in ids
            if query in top_ranked
        }
        asked = {query: text for query, text in zip(ids, texts, strict=True) if query in candidates}
        return score_candidates(subject, asked, candidates)

    def _subject(self, task_metadata: Any) -> Subject:  # noqa: ANN401
        """Return the subject with the prompts of a task, and note them."""
        contract = self.subject.model.contract
        chosen = (
            self._prompt(task_metadata, "query", contract.query_prompt),
            self._prompt(task_metadata, "document", contract.document_prompt),
        )
        self.used_prompts[task_metadata.name] = chosen
        if chosen == (contract.query_prompt, contract.document_prompt):
            return self.subject
        if chosen not in self._prompted:
            model = with_prompts(self.subject.model, *chosen)
            self._prompted[chosen] = replace(self.subject, model=model)
        return self._prompted[chosen]

    def _prompt(self, task_metadata: Any, side: str, default: str) -> str:  # noqa: ANN401
        """Look a prompt up in mteb's order: by task and side, task, type and side, type, side."""
        name, kind = task_metadata.name, task_metadata.type
        for key in (f"{name}-{side}", name, f"{kind}-{side}", kind, side):
            if key in self.prompts:
                return self.prompts[key]
        return default


class DenseMtebModel(MtebModel):
    """Implements mteb's ``EncoderProtocol`` as well, for models with one vector per text."""

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,  # noqa: ANN401
        prompt_type: PromptType | None = None,
        **_: object,
    ) -> Float32[np.ndarray, "texts dim"]:
        """Encode texts as queries, as documents, or, where mteb does not say, as texts among their like."""
        role: Role = "symmetric" if prompt_type is None else prompt_type.value
        vectors = self._subject(task_metadata).encode(_texts(inputs), role)
        assert isinstance(vectors, np.ndarray)
        return np.array(vectors)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:  # noqa: ANN401
        """Score all against all: inner products, which are cosines where the contract normalises."""
        first, second = _rows(embeddings1), _rows(embeddings2)
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:  # noqa: ANN401
        """Score row by row."""
        products: Tensor = (_rows(embeddings1) * _rows(embeddings2)).sum(dim=-1)
        return products


def as_mteb_model(subject: Subject, prompts: Prompts | None = None) -> MtebModel:
    """Return the model in the form that mteb can ask the most of."""
    return (DenseMtebModel if subject.is_dense else MtebModel)(subject, prompts)


def _texts(batches: Iterable[Mapping[str, Any]]) -> list[str]:
    return [text for batch in batches for text in batch["text"]]


def _rows(embeddings: Any) -> Tensor:  # noqa: ANN401
    values = torch.as_tensor(embeddings).float()
    return values[None] if values.ndim == 1 else values


def _safe_name(name: str) -> str:
    """Make a folder's name one that can be a repository's: the last part, and the run's for ``run/model``."""
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..")]
    kept = parts[-2:] if parts and parts[-1] == "model" else parts[-1:]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(kept)) or "model"
