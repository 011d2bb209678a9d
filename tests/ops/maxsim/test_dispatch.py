"""Which backend computes MaxSim, and what a fused one is given."""

from types import ModuleType

import pytest
import torch
from padded_texts import padded_maxsim

from embedtrain.errors import UserError
from embedtrain.ops.maxsim import scores as module
from embedtrain.ops.maxsim.scores import maxsim


def example():
    """Random embeddings, all tokens real."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 5, 6, generator=generator)
    document = torch.randn(4, 7, 6, generator=generator)
    masks = (torch.ones(x.shape[:-1], dtype=torch.bool) for x in (query, document))
    return query, document, *masks


def test_fused_is_refused_where_it_cannot_run(monkeypatch):
    kernels = ModuleType("kernels")
    kernels.unsupported = lambda query, document: "device cpu"
    monkeypatch.setattr(module, "load_fused", lambda operation: kernels)
    with pytest.raises(UserError, match="cannot run here; got 'device cpu'"):
        padded_maxsim(*example(), backend="fused")


def test_fused_kernels_are_given_only_documents_with_tokens(monkeypatch):
    seen = []

    def record(query, document):
        seen.append(document.lengths)
        return maxsim(query, document)

    kernels = ModuleType("kernels")
    kernels.unsupported = lambda query, document: ""
    kernels.maxsim_fused = record
    monkeypatch.setattr(module, "load_fused", lambda operation: kernels)
    query, document, query_mask, document_mask = example()
    document_mask[1] = False
    fused = padded_maxsim(query, document, query_mask, document_mask, backend="fused")
    assert torch.equal(fused, padded_maxsim(query, document, query_mask, document_mask))
    assert seen[0].all()
