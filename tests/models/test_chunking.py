import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution, encode_in_chunks, plan_chunks
from embedtrain.models.recall import MOST_CHUNKS, recall_contexts
from embedtrain.packed import Texts

lengths_strategy = st.lists(st.integers(1, 60), min_size=1, max_size=50).map(torch.tensor)


@given(lengths_strategy, st.integers(1, 200), st.booleans(), st.integers(0, 40))
def test_every_text_is_in_one_chunk_within_the_budget_and_longest_come_first(
    lengths, budget, padded, least
):
    chunks = plan_chunks(lengths, budget, padded=padded, least=least)
    assert sorted(torch.cat(chunks).tolist()) == list(range(len(lengths)))
    for rows in chunks:
        sizes = lengths[rows].clamp_min(least)
        size = len(rows) * int(sizes.max()) if padded else int(sizes.sum())
        assert size <= budget or len(rows) == 1
    order = lengths[torch.cat(chunks)]
    assert (order[:-1] >= order[1:]).all()


@given(lengths_strategy, st.integers(1, 200))
def test_the_embeddings_come_back_in_the_order_of_the_texts(lengths, budget):
    ids = torch.repeat_interleave(torch.arange(len(lengths)), lengths)

    def encode(texts: Texts) -> torch.Tensor:
        starts = texts.lengths.cumsum(0) - texts.lengths
        return texts.ids[starts][:, None].double()

    found = encode_in_chunks(encode, Texts(ids, lengths), Execution(budget), padded=False)
    assert found[:, 0].tolist() == list(range(len(lengths)))


def test_rematerialisation_encodes_all_chunks_but_the_last_again():
    weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
    calls = []

    def encode(texts: Texts) -> torch.Tensor:
        calls.append(len(texts))
        return weight * texts.lengths[:, None].double() * weight

    texts = Texts(torch.zeros(12, dtype=torch.int64), torch.tensor([4, 4, 4]))
    execution = Execution(4, rematerialize=True)
    encode_in_chunks(encode, texts, execution, padded=False).sum().backward()
    assert len(calls) == 3 + 2
    calls.clear()
    encode_in_chunks(
        encode, texts, Execution(4, rematerialize=1 / 3), padded=False
    ).sum().backward()
    assert len(calls) == 3 + 1
    assert weight.grad.item() == 2 * 2 * 12


@pytest.mark.parametrize("num_texts", [3, MOST_CHUNKS + 4])
def test_no_more_chunks_recall_than_together_take_half_of_one(num_texts, monkeypatch):
    asked = []

    def contexts():
        asked.append(0)
        return recall_contexts()

    monkeypatch.setattr("embedtrain.models.chunking.recall_contexts", contexts)
    weight = torch.ones(1, requires_grad=True)

    def encode(texts: Texts) -> torch.Tensor:
        return weight * texts.lengths[:, None]

    texts = Texts(torch.zeros(4 * num_texts, dtype=torch.int64), torch.full((num_texts,), 4))
    encode_in_chunks(encode, texts, Execution(4, rematerialize=True), padded=False)
    assert len(asked) == min(num_texts - 1, MOST_CHUNKS)


def test_the_heap_is_given_back_before_chunks_are_encoded_again(monkeypatch):
    events = []
    monkeypatch.setattr("embedtrain.models.chunking.SWEPT_TOKENS", 4)
    monkeypatch.setattr("embedtrain.models.chunking.sweep", lambda: events.append("sweep"))
    monkeypatch.setattr("embedtrain.models.chunking._heap.step_done", lambda: events.append("look"))
    weight = torch.ones(1, requires_grad=True)

    def encode(texts: Texts) -> torch.Tensor:
        events.append("encode")
        return weight * texts.lengths[:, None] * weight

    texts = Texts(torch.zeros(16, dtype=torch.int64), torch.full((4,), 4))
    again = Execution(4, rematerialize=True)
    encode_in_chunks(encode, texts, again, padded=False).sum().backward()
    forward = ["look", "encode"] * 3 + ["encode"]
    assert events == [*forward, *["sweep", "encode"] * 3]
    events.clear()
    encode_in_chunks(encode, texts, Execution(3, rematerialize=True), padded=False).sum().backward()
    assert set(events) == {"encode"}, "small chunks leave too little behind"


NO_ROOM = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"


def within(most, error, sizes):
    """Return what encodes a text as its first token, and fails for more than so many tokens."""

    def encode(texts: Texts) -> torch.Tensor:
        sizes.append(len(texts.ids))
        if len(texts.ids) > most:
            raise error
        return texts.ids[texts.lengths.cumsum(0) - texts.lengths][:, None].double()

    return encode


@given(lengths_strategy, st.integers(60, 200))
def test_without_gradients_a_chunk_that_does_not_fit_becomes_smaller_ones(lengths, most):
    ids, sizes = torch.repeat_interleave(torch.arange(len(lengths)), lengths), []
    encode = within(most, RuntimeError(NO_ROOM), sizes)
    with torch.no_grad():
        found = encode_in_chunks(encode, Texts(ids, lengths), Execution(10_000), padded=False)
    assert found[:, 0].tolist() == list(range(len(lengths)))
    failed = sum(size > most for size in sizes)
    assert failed <= 7, "each failure halves all chunks that are left"
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        encode_in_chunks(
            within(0, RuntimeError(NO_ROOM), []),
            Texts(ids, lengths),
            Execution(10_000),
            padded=False,
        )  # with gradients the step is done again as a whole


def test_a_text_that_does_not_fit_alone_and_other_errors_end_it():
    texts = Texts(torch.zeros(9, dtype=torch.int64), torch.tensor([4, 5]))
    with torch.no_grad():
        with pytest.raises(UserError, match="a text of 5 tokens does not fit into memory"):
            encode_in_chunks(within(4, MemoryError(), []), texts, Execution(99), padded=True)
        with pytest.raises(RuntimeError, match="shapes"):
            encode_in_chunks(
                within(4, RuntimeError("shapes"), []), texts, Execution(99), padded=True
            )
