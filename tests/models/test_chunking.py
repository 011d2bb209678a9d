import torch
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.models.chunking import Execution, encode_in_chunks, plan_chunks
from embedtrain.types import Texts

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
