"""The PLAID index of the ``fast-plaid`` package, for millions of documents; reused, not rewritten.

Its wheels need one exact version of torch each, so it is an extra and often an environment of its own.

Source: Santhanam et al. (2022), https://arxiv.org/abs/2205.09707; https://github.com/lightonai/fast-plaid.
"""

import importlib
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from embedtrain.errors import UserError, missing_extra
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.index_folder import (
    new_folder,
    read_manifest,
    write_manifest,
)
from embedtrain.retrieval.late_interaction.exact import check_documents, check_wanted, cut_blocks
from embedtrain.section import Count, Section
from embedtrain.types import TokenVectors

PLAID_FOLDER = "plaid"
QUERY_TOKENS = 2**12
"""Query tokens searched at once."""


class FastPlaidSearch(Section):
    """Search centroids and quantised residuals with fast-plaid; scores are those of the residuals."""

    name: Literal["fast_plaid"] = "fast_plaid"
    num_bits: Literal[1, 2, 4, 8] = 4
    """Bits for each number of a residual."""
    num_probes: Count = 8
    """Clusters searched for each query token."""
    num_candidates: Count = 4096
    """Documents whose residuals are scored for each query."""
    seed: int = 42

    def build(
        self, documents: TokenVectors, device: torch.device | str = "cpu"
    ) -> "FastPlaidIndex":
        """Cluster and quantise the documents, in a temporary folder until the index is saved."""
        check_documents(documents)
        if documents.exact_match or documents.cls is not None or (documents.lengths == 0).any():
            raise UserError(
                "fast_plaid",
                "needs documents with tokens and knows neither cls vectors nor exact_match",
                cure="Search with exact",
            )
        folder = Path(tempfile.mkdtemp())
        try:
            index = _open(folder, device).create(
                _split(documents), nbits=self.num_bits, seed=self.seed
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        built = FastPlaidIndex(folder, index, len(documents), self)
        weakref.finalize(built, shutil.rmtree, folder, ignore_errors=True)
        return built


@dataclass(frozen=True)
class FastPlaidIndex:
    """A fast-plaid index in a folder, which it maps into memory."""

    folder: Path
    index: Any
    num_documents: int
    settings: FastPlaidSearch
    kind: Literal["fast_plaid"] = "fast_plaid"

    @property
    def num_bytes(self) -> int:
        """Bytes of the index's files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def search(self, queries: TokenVectors, num_results: int) -> SearchResult:
        """Return the documents that fast-plaid finds; equal scores by the lower index."""
        check_wanted(queries, num_results)
        wanted = min(num_results, self.num_documents)
        result = SearchResult.empty(len(queries), wanted)
        for start, stop in cut_blocks(queries.lengths, QUERY_TOKENS):
            found = self.index.search(
                _split(queries.part(start, stop)),
                top_k=wanted,
                n_full_scores=max(num_results, self.settings.num_candidates),
                n_ivf_probe=self.settings.num_probes,
                show_progress=False,
            )
            for number, hits in enumerate(found, start):
                ordered = sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:wanted]
                for place, hit in enumerate(ordered):
                    result.indices[number, place], result.scores[number, place] = hit
        return result

    def save(self, folder: Path) -> None:
        """Copy the index's files."""
        with new_folder(folder) as partial:
            shutil.copytree(self.folder, partial / PLAID_FOLDER)
            content = {"settings": self.settings.model_dump(), "num_documents": self.num_documents}
            write_manifest(partial, self.kind, content)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "FastPlaidIndex":
        """Open a saved index, which needs write access for fast-plaid's lock."""
        manifest = read_manifest(folder, "fast_plaid", "settings", "num_documents")
        settings = FastPlaidSearch.model_validate(manifest["settings"])
        place = folder / PLAID_FOLDER
        return cls(place, _open(place, device), manifest["num_documents"], settings)


def _split(vectors: TokenVectors) -> list[Tensor]:
    return list(torch.split(vectors.tensors().tokens, vectors.lengths.tolist()))


def _open(folder: Path, device: torch.device | str) -> Any:  # noqa: ANN401 - it has no types
    try:
        module = importlib.import_module("fast_plaid.search")
    except ImportError as error:
        raise missing_extra("fast-plaid", "fast-plaid", "for search: {name: fast_plaid}") from error
    return module.FastPlaid(index=str(folder), device=str(device))
