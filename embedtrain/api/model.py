"""A trained model in Python: texts in, vectors and search results out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.interaction_types import Interaction
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.retrieval.search import Documents, for_many_searches, search
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors
from embedtrain.workflows.search import Hit, list_hits

Vectors = NDArray[np.float32] | TokenVectors | SparseVectors
"""One vector per text, shape [texts, dim]; of a late-interaction model those of all tokens; of a sparse one what is
not 0."""


@dataclass(frozen=True)
class Index:
    """Documents and their vectors, made once by :meth:`Model.index` and searched often.

    The first search on a GPU copies the vectors there, if they fit well: leave them as they are.
    """

    ids: list[str]
    texts: list[str]
    vectors: Vectors = field(repr=False)
    _near: dict[str, Documents] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.texts)

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_near": {}}  # another machine may have no GPU

    def near(self, interaction: Interaction | None, device: torch.device) -> Documents:
        """Return the vectors where a model searches them."""
        if interaction is not None:
            return self.vectors
        place = str(device)
        if place not in self._near:
            self._near[place] = for_many_searches(self.vectors, None, device)
        return self._near[place]


@dataclass(frozen=True)
class Model:
    """A model that is ready to use. Prompts, lengths and pooling are its own: give plain texts."""

    path: str
    """Where it was loaded from."""
    encoder: TextEncoder = field(repr=False)
    """The module itself, for all that is not here."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of queries.

        Raises:
            UserError: If ``texts`` is no list of texts, or one of them is empty.
        """
        return encode_texts(self.encoder, _read_texts(texts, "texts"), "query")

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of documents.

        Raises:
            UserError: If ``texts`` is no list of texts.
        """
        return encode_texts(self.encoder, _read_texts(texts, "texts"), "document")

    def index(self, documents: Sequence[str] | Mapping[str, str]) -> Index:
        """Encode documents, texts or id to text, to search them often. Ids of plain texts count from 0.

        Raises:
            UserError: If ``documents`` are neither, or there is none.
        """
        texts = _read_texts(documents, "documents")
        ids = documents if isinstance(documents, Mapping) else range(len(texts))
        return Index(
            [str(one) for one in ids], texts, encode_texts(self.encoder, texts, "document")
        )

    @overload
    def search(  # type: ignore[overload-overlap] # a text is a sequence of texts, but not here
        self, query: str, documents: Index | Sequence[str] | Mapping[str, str], top: int = 5
    ) -> list[Hit]: ...
    @overload
    def search(
        self,
        query: Sequence[str],
        documents: Index | Sequence[str] | Mapping[str, str],
        top: int = 5,
    ) -> list[list[Hit]]: ...

    def search(
        self,
        query: str | Sequence[str],
        documents: Index | Sequence[str] | Mapping[str, str],
        top: int = 5,
    ) -> list[Hit] | list[list[Hit]]:
        """Return the ``top`` best documents of a query, best first; of several queries, a list of such lists.

        Args:
            query: One text, or several.
            documents: An :meth:`index`, or documents, which are encoded for this search only.
            top: Results per query.

        Raises:
            UserError: If one of them is none of these.
        """
        texts = [query] if isinstance(query, str) else _read_texts(query, "query")
        if not isinstance(top, int) or top < 1:
            raise UserError("top", "must be a whole number above 0", got=top, cure="Give top=5")
        index = documents if isinstance(documents, Index) else self.index(documents)
        queries = encode_texts(self.encoder, texts, "query")
        interaction, device = interaction_of(self.encoder), self.encoder.device
        found = search(queries, index.near(interaction, device), top, interaction, device)
        hits = list_hits(found, index.ids, index.texts)
        return hits[0] if isinstance(query, str) else hits


def _read_texts(given: object, place: Literal["texts", "query", "documents"]) -> list[str]:
    """Return what was given as a list of texts, once it is one; ``documents`` may have ids."""
    named = place == "documents" and isinstance(given, Mapping)
    wrong = isinstance(given, str | bytes | Mapping) and not named
    if wrong or not isinstance(given, Iterable) or not (listed := list(given)):
        cure = {"query": "Give a text or [text]", "texts": "Give [text]"}.get(
            place, "Give [text] or {id: text}"
        )
        raise UserError(place, "must be a list of one or more texts", got=given, cure=cure)
    texts: list[str] = []
    for key, text in given.items() if isinstance(given, Mapping) else enumerate(listed):
        if not isinstance(text, str):
            raise UserError(f"{place}[{key!r}]", "is no text", got=text, cure="Give a text")
        texts.append(text)
    return texts


def load(path: str | Path, *, instruction: str | None = None) -> Model:
    """Load a model: a run, a folder that embedtrain or sentence-transformers wrote, or a Hub id.

    Args:
        path: What to load; of a run, its exported model.
        instruction: Name of one of the model's, whose prompts take the place of the usual ones.

    Raises:
        UserError: If there is no model.
    """
    run = RunFolder(Path(path))
    if run.is_run and not run.model.is_dir():
        cure = f"Finish it with embedtrain.resume({str(path)!r})"
        raise UserError(path, "is a run that has no model yet", cure=cure)
    place = str(run.model if run.is_run else path)
    return Model(place, load_encoder(place, instruction=instruction))
