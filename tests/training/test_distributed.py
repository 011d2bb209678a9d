"""Several gloo processes against one process with the whole batch, in float64."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.ops import infonce_plan
from embedtrain.ops.infonce import InfoNCEOptions, infonce
from embedtrain.training import distributed
from embedtrain.training.distributed import (
    document_ring,
    gather_outputs,
    gather_queries,
    loss_share,
)
from embedtrain.types import Relevance, RetrievalOutputs, TokenEmbeddings

GROUP = 3
EVERY_DIRECTION = (
    "query_to_document",
    "document_to_query",
    "query_to_query",
    "document_to_document",
)
SIZES = {
    "2 even": [4, 4],
    "2 uneven": [2, 5],
    "4 even": [2, 2, 2, 2],
    "4 uneven": [1, 4, 2, 3],
}
OPTIONS = {
    "plain": InfoNCEOptions(),
    "margin": InfoNCEOptions(false_negative_margin=0.1),
    "own": InfoNCEOptions(negatives="own"),
    "symmetric": InfoNCEOptions(
        directions=("query_to_document", "document_to_query"), partition="per_direction"
    ),
    "joint": InfoNCEOptions(directions=EVERY_DIRECTION),
    "hardness": InfoNCEOptions(hardness=1.0, hardness_scope="in_batch", label_smoothing=0.1),
}


def _child(rank: int, ranks: int, store: str, work: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)  # a forked child must not enter an OpenMP region with more
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()


def on_ranks(ranks: int, work: Callable, *arguments: object) -> None:
    """Run ``work`` in forked processes; an assertion that fails in one of them fails here."""
    with tempfile.TemporaryDirectory() as folder:
        started = mp.start_processes(
            _child,
            (ranks, str(Path(folder) / "store"), work, arguments),
            nprocs=ranks,
            start_method="fork",
            join=False,
        )
        deadline = time.monotonic() + 60
        while not started.join(timeout=0.1):
            if time.monotonic() > deadline:
                for process in started.processes:
                    process.kill()
                pytest.fail("the ranks wait for each other")


class Encoder(torch.nn.Module):
    """Stands for a model: its gradients are what ranks must agree on."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        self.weight = torch.nn.Parameter(weight)
        self.temperature = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, query: torch.Tensor, document: torch.Tensor, relevance: Relevance):
        encode = lambda rows: F.normalize(rows @ self.weight.T, dim=1)  # noqa: E731
        return RetrievalOutputs(encode(query), encode(document), relevance, self.temperature)


def batch(num_queries: int, first: int = 0, last: int | None = None):
    """Return the part of a batch that a rank holds; ids coincide now and then, also between ranks."""
    generator = torch.Generator().manual_seed(1)
    last = num_queries if last is None else last
    own, candidates = slice(first, last), slice(first * GROUP, last * GROUP)
    query = torch.randn(num_queries, 6, generator=generator, dtype=torch.float64)
    document = torch.randn(num_queries * GROUP, 6, generator=generator, dtype=torch.float64)
    document_ids = torch.randint(0, 2 * num_queries, (num_queries * GROUP,), generator=generator)
    known = torch.randint(-1, 2 * num_queries, (num_queries, 2), generator=generator)
    teacher = torch.randn(num_queries * GROUP, generator=generator)
    numbers = torch.arange(num_queries)
    positives = (numbers[own, None] - first) * GROUP + torch.tensor([0, 1])
    positives[numbers[own] % 2 == 0, 1] = -1
    relevance = Relevance(
        query_ids=(numbers % max(num_queries - 1, 1))[own],
        document_ids=document_ids[candidates],
        owners=numbers.repeat_interleave(GROUP)[candidates] - first,
        positives=positives,
        known_positives=known[own],
        teacher_scores=teacher[candidates],
    )
    return query[own], document[candidates], relevance


def loss_of(outputs: RetrievalOutputs, options: InfoNCEOptions, **more: object) -> torch.Tensor:
    relevance = outputs.relevance
    return infonce(
        outputs.query,
        outputs.document,
        relevance.positives,
        outputs.temperature,
        query_ids=relevance.query_ids,
        document_ids=relevance.document_ids,
        known_positives=relevance.known_positives,
        owners=relevance.owners,
        options=options,
        **more,
    ).loss


def one_process(num_queries: int, options: InfoNCEOptions) -> tuple[torch.Tensor, ...]:
    encoder = Encoder()
    query, document, relevance = batch(num_queries)
    loss = loss_of(encoder(query, document, relevance), options, backend="reference")
    loss.backward()
    return loss.detach(), encoder.weight.grad, encoder.temperature.grad


def average_over_ranks(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Do what DDP does to gradients."""
    results = [tensor.detach().clone() for tensor in tensors]
    for result in results:
        dist.all_reduce(result)
        result.div_(dist.get_world_size())
    return results


def own_rows(sizes: list[int]) -> tuple[int, int]:
    rank = dist.get_rank()
    return sum(sizes[:rank]), sum(sizes[: rank + 1])


def check_gathered(sizes: list[int], options: InfoNCEOptions, expected: tuple) -> None:
    encoder, (first, last) = Encoder(), own_rows(sizes)
    outputs = encoder(*batch(sum(sizes), first, last))
    gathered = gather_outputs(outputs, with_queries=len(options.directions) > 1)
    queries = {}
    if gathered.all_queries is not None:
        queries = {
            "all_query": gathered.all_queries.embeddings,
            "all_query_ids": gathered.all_queries.ids,
            "all_known_positives": gathered.all_queries.known_positives,
        }
    loss = loss_of(gathered, options, **queries) * loss_share(last - first)
    loss.backward()
    found = average_over_ranks(loss, encoder.weight.grad, encoder.temperature.grad)
    for one, many in zip(expected, found, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


def check_gathered_every_way(sizes: list[int]) -> None:
    for options in OPTIONS.values():
        check_gathered(sizes, options, one_process(sum(sizes), options))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_ranks_that_gather_train_like_one_process(sizes):
    on_ranks(len(sizes), check_gathered_every_way, sizes)


def check_ring(sizes: list[int]) -> None:
    for name in ("plain", "margin"):
        expected = one_process(sum(sizes), OPTIONS[name])
        encoder, (first, last) = Encoder(), own_rows(sizes)
        outputs = encoder(*batch(sum(sizes), first, last))
        ring = document_ring(len(outputs.document), last - first, torch.device("cpu"))
        with LargestTensor() as seen:
            loss = loss_of(outputs, OPTIONS[name], ring=ring)
            loss.backward()
        assert seen.most_embeddings <= max(sizes) * GROUP
        found = average_over_ranks(loss, encoder.weight.grad, encoder.temperature.grad)
        for one, many in zip(expected, found, strict=True):
            torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Watches how many embeddings (rows of 5 numbers) any tensor holds."""

    def __init__(self) -> None:
        super().__init__()
        self.most_embeddings = 0

    def __torch_dispatch__(self, function, types, arguments=(), settings=None):
        result = function(*arguments, **(settings or {}))
        if isinstance(result, torch.Tensor) and result.ndim == 2 and result.shape[1] == 5:
            self.most_embeddings = max(self.most_embeddings, len(result))
        return result


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_a_ring_trains_like_one_process_and_holds_one_shard_at_a_time(sizes):
    on_ranks(len(sizes), check_ring, sizes)


def check_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("_all_gather", "_reduce_scatter"):
        original = getattr(distributed, name)

        def counted(*arguments, name=name, original=original):
            calls.append((name, arguments[1].numel()))
            original(*arguments)

        monkeypatch.setattr(distributed, name, counted)
    monkeypatch.setattr(infonce_plan, "TILE_BYTES", 1)
    monkeypatch.setattr(infonce_plan, "FEWEST_ROWS", 1)
    encoder, (first, last) = Encoder(), own_rows([4, 4])
    loss = loss_of(gather_outputs(encoder(*batch(8, first, last))), InfoNCEOptions())
    loss.backward()
    names, sizes = zip(*calls, strict=True)
    assert names == ("_all_gather", "_all_gather", "_reduce_scatter")
    assert sizes[0] == 3  # how many documents, vectors and queries this rank holds


def test_any_number_of_tiles_costs_one_gather_and_one_reduce_scatter(monkeypatch):
    on_ranks(2, check_collectives, monkeypatch)


def check_fields(sizes: list[int]) -> None:
    first, last = own_rows(sizes)
    query, document, relevance = batch(sum(sizes), first, last)
    _, all_documents, everything = batch(sum(sizes))
    outputs = gather_outputs(RetrievalOutputs(query, document, relevance))
    shift = -first * GROUP
    assert torch.equal(outputs.document, all_documents.roll(shift, 0))
    assert torch.equal(outputs.query, query)
    gathered = outputs.relevance
    assert torch.equal(gathered.document_ids, everything.document_ids.roll(shift))
    assert torch.equal(gathered.teacher_scores, everything.teacher_scores.roll(shift))
    assert torch.equal(gathered.owners, (everything.owners.roll(shift) - first) % sum(sizes))
    assert torch.equal(gathered.positives, relevance.positives)


def test_gathered_documents_stand_own_first_with_their_ids_owners_and_teacher_scores():
    on_ranks(2, check_fields, [2, 5])


def check_half_precision() -> None:
    first, last = own_rows([2, 3])
    query, document, relevance = batch(5, first, last)
    half = document.bfloat16().requires_grad_()
    gathered = gather_outputs(RetrievalOutputs(query.bfloat16(), half, relevance)).document
    assert gathered.dtype == torch.bfloat16
    gathered.sum().backward()
    assert torch.equal(half.grad, torch.full_like(half, 2.0))


def test_bfloat16_embeddings_travel_as_they_are():
    on_ranks(2, check_half_precision)


def test_one_process_without_a_group_gathers_nothing():
    outputs = Encoder()(*batch(4))
    assert gather_outputs(outputs) is outputs
    assert loss_share(4) == 1.0
    assert document_ring(12, 4, torch.device("cpu")) is None
    assert gather_queries(outputs).embeddings is outputs.query


TOKENS = 4


class TokenEncoder(Encoder):
    """Several vectors per text: text ``n`` has ``1 + n % 3``, however the batch is cut."""

    def forward(self, query: torch.Tensor, document: torch.Tensor, relevance: Relevance):
        query, document = (self.tokens(rows) for rows in (query, document))
        return RetrievalOutputs(query, document, relevance, self.temperature)

    def tokens(self, rows: torch.Tensor) -> TokenEmbeddings:
        lengths = 1 + (rows[:, 0].abs() * 1000).long() % TOKENS
        ids = torch.arange(int(lengths.sum()))
        turned = rows.repeat_interleave(lengths, 0).clone()
        within = ids - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        turned[:, 0] += within
        cls = F.normalize(rows @ self.weight.T, dim=1)[:, :2]
        return TokenEmbeddings(F.normalize(turned @ self.weight.T, dim=1), lengths, within, cls)


SYMMETRIC = InfoNCE(directions=("query_to_document", "document_to_query"))


def check_tokens(sizes: list[int]) -> None:
    objectives = (InfoNCE(), InfoNCE(negatives="others"), InfoNCE(negatives="own"), SYMMETRIC)
    for objective in objectives:
        whole = TokenEncoder()
        loss = objective(whole(*batch(sum(sizes)))).loss
        loss.backward()
        expected = loss.detach(), whole.weight.grad, whole.temperature.grad
        encoder, (first, last) = TokenEncoder(), own_rows(sizes)
        outputs = encoder(*batch(sum(sizes), first, last))
        gathered = gather_outputs(outputs, with_queries=objective.needs_all_queries)
        loss = objective(gathered).loss * loss_share(last - first)
        loss.backward()
        found = average_over_ranks(loss, encoder.weight.grad, encoder.temperature.grad)
        for one, many in zip(expected, found, strict=True):
            torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [[4, 4], [1, 4, 2, 3]], ids=["2 even", "4 uneven"])
def test_ranks_train_late_interaction_like_one_process(sizes):
    on_ranks(len(sizes), check_tokens, sizes)


def check_token_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("_all_gather", "_reduce_scatter"):
        original = getattr(distributed, name)

        def counted(*arguments, name=name, original=original):
            calls.append(name)
            original(*arguments)

        monkeypatch.setattr(distributed, name, counted)
    encoder, (first, last) = TokenEncoder(), own_rows([4, 4])
    outputs = encoder(*batch(8, first, last))
    outputs = replace(
        outputs,
        query=replace(outputs.query, cls=None),
        document=replace(outputs.document, cls=None),
    )
    InfoNCE()(gather_outputs(outputs)).loss.backward()
    assert calls == ["_all_gather", "_all_gather", "_reduce_scatter"]


def test_late_interaction_costs_one_gather_and_one_reduce_scatter(monkeypatch):
    on_ranks(2, check_token_collectives, monkeypatch)
