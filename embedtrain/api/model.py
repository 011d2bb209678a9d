"""A trained model in Python: texts in, vectors and search results out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.encoder import TextEncoder
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.retrieval.search import search
from embedtrain.types import Side, TokenVectors
from embedtrain.workflows.search import Hit, list_hits

Vectors = NDArray[np.float32] | TokenVectors
"""One vector per text, shape [texts, dim]; or, of a late-interaction model, those of all tokens."""


@dataclass(frozen=True)
class Index:
    """Documents and their vectors, made once by :meth:`Model.index` and searched often."""

    ids: list[str]
    texts: list[str]
    vectors: Vectors = field(repr=False)

    def __len__(self) -> int:
        return len(self.texts)


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
        return self._encode(texts, "query")

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of documents.

        Raises:
            UserError: If ``texts`` is no list of texts.
        """
        return self._encode(texts, "document")

    def index(self, documents: Sequence[str] | Mapping[str, str]) -> Index:
        """Encode documents, texts or id to text, to search them often. Ids of plain texts count from 0."""
        texts = list(documents.values() if isinstance(documents, Mapping) else documents)
        ids = documents if isinstance(documents, Mapping) else range(len(texts))
        return Index([str(one) for one in ids], texts, self.encode_documents(texts))

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
        """
        index = documents if isinstance(documents, Index) else self.index(documents)
        queries = self.encode_queries([query] if isinstance(query, str) else query)
        found = search(queries, index.vectors, top, interaction_of(self.encoder))
        hits = list_hits(found, index.ids, index.texts)
        return hits[0] if isinstance(query, str) else hits

    def _encode(self, texts: Sequence[str], side: Side) -> Vectors:
        listed = [] if isinstance(texts, str) else list(texts)
        wrong = next((text for text in listed if not isinstance(text, str)), None)
        if not listed or wrong is not None:
            got = texts if wrong is None else wrong
            raise UserError(
                "texts", "must be a list of one or more texts", got=got, cure="Give [text]"
            )
        return encode_texts(self.encoder, listed, side)


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
