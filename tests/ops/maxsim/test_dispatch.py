"""Which backend computes MaxSim, and what a fused one is given."""

from types import ModuleType

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.ops.maxsim import scores as module
from embedtrain.ops.maxsim.scores import (
    maxsim,
    maxsim_grouped,
    maxsim_grouped_packed,
    maxsim_packed,
)


def example(*, grouped):
    """Random embeddings, all tokens real."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 2) if grouped else (4,)
    query = torch.randn(3, 5, 6, generator=generator)
    document = torch.randn(*shape, 7, 6, generator=generator)
    masks = (torch.ones(x.shape[:-1], dtype=torch.bool) for x in (query, document))
    return query, document, *masks


@pytest.mark.parametrize("function", [maxsim, maxsim_grouped])
def test_fused_is_refused_where_it_cannot_run(function, monkeypatch):
    kernels = ModuleType("kernels")
    kernels.unsupported = lambda query, document: "device cpu"
    monkeypatch.setattr(module, "load_fused", lambda operation: kernels)
    arguments = example(grouped=function is maxsim_grouped)
    with pytest.raises(UserError, match="cannot run here; got 'device cpu'"):
        function(*arguments, backend="fused")


@pytest.mark.parametrize("function", [maxsim, maxsim_grouped])
def test_fused_kernels_are_given_only_documents_with_tokens(function, monkeypatch):
    seen = []

    def record(packed):
        def run(query, document, *owners):
            seen.append(document.lengths)
            return packed(query, document, *owners)

        return run

    kernels = ModuleType("kernels")
    kernels.unsupported = lambda query, document: ""
    kernels.maxsim_packed = record(maxsim_packed)
    kernels.maxsim_grouped_packed = record(maxsim_grouped_packed)
    monkeypatch.setattr(module, "load_fused", lambda operation: kernels)
    query, document, query_mask, document_mask = example(grouped=function is maxsim_grouped)
    document_mask[1] = False
    fused = function(query, document, query_mask, document_mask, backend="fused")
    assert torch.equal(fused, function(query, document, query_mask, document_mask))
    assert seen[0].all()
