"""How queries are asked: in several forms, and once more after what they found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from embedtrain.data.readers.query_forms import FILE, Form, read_query_forms
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.mining.bm25 import Bm25Index
from embedtrain.mining.search import best_rows
from embedtrain.recipe.overrides import read_section
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.feedback import Rocchio, Vectors, scaled, search_again, sum_of
from embedtrain.retrieval.fusion import Fusion, normalise, pool_lists
from embedtrain.retrieval.indexes import Kind
from embedtrain.retrieval.late_interaction.feedback import Feedback
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import TokenVectors

How = Literal["mean", "fuse", "max"]
SPARSE_ENTRIES = 64
"""Entries that the mean of sparse vectors keeps, the largest."""


@dataclass(frozen=True)
class Asking:
    """What is done with queries beyond searching them as they are."""

    forms: How | None = None
    """How the forms of ``query_forms.jsonl`` work together: ``mean`` of their vectors (of BM25's scores), ``fuse``
    of their lists by the weighted sum of scores between 0 and 1, ``max`` of their scores."""
    feedback: str | None = None
    """Words of :func:`read_feedback`; None searches once."""

    def __bool__(self) -> bool:
        return self.forms is not None or self.feedback is not None

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UserError: If lists of forms are asked to learn from what they found.
        """
        if self.feedback is not None and self.forms in ("fuse", "max"):
            cure = "Use --forms mean"
            raise UserError(
                "--feedback", "needs one vector of each query", got=self.forms, cure=cure
            )

    def settings(self, task: Retrieval) -> dict[str, object]:
        """Return what a result says of it: the forms by their content, for another file is another system."""
        found: dict[str, object] = {}
        if self.forms is not None:
            path = task.files.path / FILE
            found["forms"] = f"{self.forms} of {hash_files([path])[:12]}"
        if self.feedback is not None:
            found["feedback"] = self.feedback
        return found


PLAIN = Asking()
"""Queries as they are."""


def read_feedback(words: str, kind: Kind) -> Rocchio | Feedback:
    """Read ``N`` or ``N:key=value,...``, N being the number of documents.

    Raises:
        UserError: If there is no such key, or not such a value.
    """
    number, _, rest = words.partition(":")
    given = [f"num_documents={number}", *(one for one in rest.split(",") if one)]
    if kind == "late_interaction":
        return read_section(Feedback, given, "--feedback")
    return read_section(Rocchio, given, "--feedback")


def ask_model(subject: Subject, task: Retrieval, asking: Asking, depth: int) -> SearchResult:
    """Search the corpus of a task with a model, as is wished.

    Raises:
        UserError: If the forms cannot be read, or the model cannot do it.
    """
    asking.check()
    documents = task.task.documents

    def find(vectors: Vectors, num_results: int) -> SearchResult:
        return subject.find(vectors, documents, num_results)

    if asking.forms is None:
        vectors = subject.encode(task.task.queries, "query")
    else:
        forms = read_forms(task)
        if asking.forms != "mean":
            lists = by_form(forms, lambda one: find(encode_forms(subject, one), depth))
            return _together(lists, forms, asking.forms, depth)
        vectors = mean_vectors(subject, forms)
    if asking.feedback is None:
        return find(vectors, depth)
    kind, similarity = subject.kind, subject.model.contract.similarity
    settings = read_feedback(asking.feedback, kind)
    kept = subject.encode(documents, "document")
    return search_again(find, vectors, kept, depth, settings, similarity)


def ask_words(index: Bm25Index, task: Retrieval, asking: Asking, depth: int) -> SearchResult:
    """Search the corpus of a task by BM25, as is wished.

    Raises:
        UserError: If the forms cannot be read, or feedback is asked for.
    """
    if asking.feedback is not None:
        raise UserError("--feedback", "is for models", got="bm25", cure="Leave bm25 out")
    forms = read_forms(task)
    if asking.forms != "mean":
        lists = by_form(forms, lambda one: index.search([form.text for form in one], depth))
        return _together(lists, forms, asking.forms or "fuse", depth)
    found = SearchResult.empty(len(forms), min(depth, index.num_documents))
    for row, own in enumerate(forms):
        weights = np.array([form.weight for form in own]) / sum(form.weight for form in own)
        each = index.scores([form.text for form in own])
        scores = sum(weight * one for weight, one in zip(weights, each, strict=True))
        best = best_rows(np.asarray(scores, dtype=np.float32), depth)
        found.indices[row, : len(best)] = best
        found.scores[row, : len(best)] = np.asarray(scores)[best]
    return found


def read_forms(task: Retrieval) -> list[list[Form]]:
    """Return the forms of each query of a task.

    Raises:
        UserError: If its folder has none.
    """
    path = task.files.path / FILE
    if not path.is_file():
        raise UserError("--forms", f"needs a {FILE} beside the queries", got=str(task.files.path))
    return read_query_forms(path, task.task.query_ids, task.task.queries)


def by_form(
    forms: Sequence[Sequence[Form]], search: Callable[[Sequence[Form]], SearchResult]
) -> list[SearchResult]:
    """Return a list of results for the first form of every query, one for the second, and so on; empty where none is."""
    lists = []
    for number in range(max(map(len, forms))):
        rows = [row for row, own in enumerate(forms) if number < len(own)]
        found = search([forms[row][number] for row in rows])
        whole = SearchResult.empty(len(forms), found.indices.shape[1])
        whole.indices[rows], whole.scores[rows] = found.indices, found.scores
        lists.append(whole)
    return lists


def encode_forms(subject: Subject, forms: Sequence[Form]) -> Vectors:
    """Return a vector of each form, made by the side of the model that it is read by."""
    asked = [place for place, form in enumerate(forms) if not form.is_document]
    answers = [place for place, form in enumerate(forms) if form.is_document]
    parts = []
    if asked:
        parts.append(subject.encode([forms[place].text for place in asked], "query"))
    if answers:
        parts.append(subject.encode([forms[place].text for place in answers], "document"))
    return _select(_joined(parts), np.argsort([*asked, *answers]))


def mean_vectors(subject: Subject, forms: Sequence[Sequence[Form]]) -> Vectors:
    """Return the weighted mean of the vectors of each query's forms; of several vectors per text, all of them.

    A query of one form has its vector as it is. With the cosine a mean has the length 1 again.
    """
    counts = np.array([len(own) for own in forms])
    flat = encode_forms(subject, [form for own in forms for form in own])
    weights = np.array([form.weight for own in forms for form in own])
    owners = np.repeat(np.arange(len(forms)), counts)
    if isinstance(flat, TokenVectors):
        if flat.cls is not None or flat.exact_match:
            raise UserError("--forms mean", "is not for models with a vector of the whole text")
        largest = np.maximum.reduceat(weights, np.cumsum(counts) - counts)
        lengths = np.bincount(owners, flat.lengths, minlength=len(forms)).astype(np.int64)
        return replace(scaled(flat, weights / largest[owners]), lengths=lengths)
    shares = weights / np.bincount(owners, weights)[owners]
    places = np.arange(len(owners))
    mixing = csr_array((shares, (owners, places)), shape=(len(forms), len(owners)))
    if isinstance(flat, SparseVectors):
        longest = int(flat.lengths.max(initial=0))
        return sum_of(mixing @ flat.matrix(), max(SPARSE_ENTRIES, longest))
    mixed = np.asarray(mixing @ np.asarray(flat, dtype=np.float64), dtype=np.float32)
    if subject.model.contract.similarity == "cosine":
        several = counts > 1
        norms = np.linalg.norm(mixed[several], axis=1, keepdims=True)
        mixed[several] /= np.maximum(norms, 1e-12)
    return mixed


def _together(
    lists: Sequence[SearchResult], forms: Sequence[Sequence[Form]], how: How, depth: int
) -> SearchResult:
    """Make one list of those of the forms; each query weighs its own."""
    if how == "max":
        raw = Fusion(rule="raw", weights=(1.0,) * len(lists))
        return pool_lists([normalise(one, raw) for one in lists]).highest(depth)
    weights = np.zeros((len(lists), len(forms)))
    for row, own in enumerate(forms):
        weights[: len(own), row] = [form.weight for form in own]
    return pool_lists([normalise(one, Fusion()) for one in lists]).add_up(weights, depth)


def _joined(parts: Sequence[Vectors]) -> Vectors:
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, SparseVectors):
        return SparseVectors.joined([one for one in parts if isinstance(one, SparseVectors)])
    if isinstance(first, np.ndarray):
        return np.concatenate([one for one in parts if isinstance(one, np.ndarray)])
    several = [one for one in parts if isinstance(one, TokenVectors)]
    ids = [one.ids for one in several if one.ids is not None]
    cls = [one.cls for one in several if one.cls is not None]
    return TokenVectors(
        np.concatenate([one.values for one in several]),
        np.concatenate([one.lengths for one in several]),
        np.concatenate(ids) if len(ids) == len(several) else None,
        np.concatenate(cls) if len(cls) == len(several) else None,
        first.exact_match,
    )


def _select(vectors: Vectors, rows: np.ndarray) -> Vectors:
    return vectors[rows] if isinstance(vectors, np.ndarray) else vectors.select(rows)
