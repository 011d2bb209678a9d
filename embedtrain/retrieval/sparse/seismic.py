"""The Seismic index of the ``pyseismic-lsr`` package, for millions of documents; reused, not rewritten.

Source: Bruch et al. (2024), https://arxiv.org/abs/2404.18812; https://github.com/TusKANNy/seismic.
"""

import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from embedtrain.errors import UserError, missing_extra
from embedtrain.outside import writing
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.index_folder import new_folder, read_manifest, write_manifest
from embedtrain.retrieval.sparse.posting_lists import check_documents, check_search
from embedtrain.section import Count, Section
from embedtrain.sparse_vectors import SparseVectors

FILE = "lists"
"""The index without the ending that Seismic adds."""
ENDING = ".index.seismic"
MOST_WORDS = 2**16
"""It numbers words in 16 bits."""


class SeismicSearch(Section):
    """Visit the clusters of each list whose summaries promise most; documents may be missed, and weights are kept in 16 bits."""

    name: Literal["seismic"] = "seismic"
    num_postings: Count = 3500
    """Postings of a list kept on average, the heaviest."""
    query_words: Count = 10
    """Words of a query that are looked up, the heaviest."""
    heap_factor: float = Field(default=0.7, gt=0, le=1)
    """A cluster is visited if its summary scores more than the last result divided by this."""

    def build(self, documents: SparseVectors) -> "SeismicIndex":
        """Cluster the lists."""
        module = _seismic()
        kind, dataset = module.get_seismic_string(), module.SeismicDataset()
        _check_room(check_documents(documents))
        for number in range(len(documents)):
            words, values = _entries(documents, number, kind)
            dataset.add_document(str(number), words, values)
        index = module.SeismicIndex.build_from_dataset(dataset, n_postings=self.num_postings)
        return SeismicIndex(index, self, len(documents), documents.dim, kind)


@dataclass(frozen=True)
class SeismicIndex:
    """A Seismic index, which holds the documents too."""

    index: Any
    settings: SeismicSearch
    num_documents: int
    dim: int
    string: str
    """The type of the strings that it wants for words."""
    kind: Literal["seismic"] = "seismic"

    @property
    def num_bytes(self) -> int:
        """Bytes of the index as a file."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return _write(self.index, Path(folder)).stat().st_size

    def search(self, queries: SparseVectors, num_results: int) -> SearchResult:
        """Return the documents that Seismic finds; equal scores by the lower row.

        Query by query: a batch comes back in another order than it went in.
        """
        check_search(queries, self.dim, num_results)
        wanted = min(num_results, self.num_documents)
        result = SearchResult.empty(len(queries), wanted)
        for number in range(len(queries)):
            words, values = _entries(queries, number, self.string)
            if len(words) == 0:
                continue
            found = self.index.search(
                str(number), words, values, k=wanted, query_cut=self.settings.query_words,
                heap_factor=self.settings.heap_factor,
            )  # fmt: skip
            hits = sorted((-score, int(document)) for _, score, document in found if score > 0)
            for place, (score, row) in enumerate(hits[:wanted]):
                result.indices[number, place], result.scores[number, place] = row, -score
        return result

    def save(self, folder: Path) -> None:
        """Write the index as Seismic's own file and a manifest."""
        content = {"settings": self.settings.model_dump(), "num_documents": self.num_documents}
        content |= {"dim": self.dim, "string": self.string}
        with new_folder(folder) as partial:
            _write(self.index, partial)
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path) -> "SeismicIndex":
        """Read a saved index."""
        names = ("settings", "num_documents", "dim", "string")
        manifest = read_manifest(folder, "seismic", *names)
        index = _seismic().SeismicIndex.load(str(folder / f"{FILE}{ENDING}"))
        settings = SeismicSearch.model_validate(manifest["settings"])
        return cls(index, settings, manifest["num_documents"], manifest["dim"], manifest["string"])


def _check_room(documents: SparseVectors) -> None:
    """Refuse documents that Seismic cannot cluster.

    Raises:
        UserError: If none has an entry, or they have too many words.
    """
    words = len(np.unique(documents.indices))
    if not words:
        raise UserError("index", "has documents without any entry", cure="Use --index exact")
    if words > MOST_WORDS:
        problem = f"has more than the {MOST_WORDS} words that Seismic can number"
        raise UserError("index", problem, got=words, cure="Use --index exact or two_step")


def _entries(vectors: SparseVectors, number: int, string: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the words of a text, as the numbers of their columns in strings, and their weights."""
    entries = slice(*vectors.offsets[number : number + 2].tolist())
    words = vectors.indices[entries].astype(string)
    return words, np.ascontiguousarray(vectors.values[entries], dtype=np.float32)


def _write(index: Any, folder: Path) -> Path:  # noqa: ANN401 - it has no types
    with writing(folder):
        index.save(str(folder / FILE))
    return folder / f"{FILE}{ENDING}"


def _seismic() -> Any:  # noqa: ANN401 - it has no types
    try:
        return importlib.import_module("seismic")
    except ImportError as error:
        raise missing_extra("pyseismic-lsr", "seismic", "for --index seismic") from error
