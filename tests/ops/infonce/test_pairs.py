import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.ops.infonce.pairs import match


@given(
    wanted=st.integers(1, 9).flatmap(
        lambda rows: st.lists(
            st.lists(st.integers(-1, 4), min_size=2, max_size=2, unique=True),
            min_size=rows,
            max_size=rows,
        )
    ),
    keys=st.lists(st.integers(-1, 4), min_size=1, max_size=12),
    chunk_rows=st.integers(1, 10),
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_pairs_are_the_equal_keys_of_each_chunk(wanted, keys, chunk_rows):
    matches = match(torch.tensor(wanted), torch.tensor(keys), chunk_rows)
    found = []
    for chunk in range(-(-len(wanted) // chunk_rows)):
        row, column = matches.pairs(chunk)
        found += zip((row + chunk * chunk_rows).tolist(), column.tolist(), strict=True)
    expected = [
        (i, j)
        for i, row in enumerate(wanted)
        for j, key in enumerate(keys)
        if key >= 0 and key in row
    ]
    assert sorted(found) == expected


def test_columns_may_have_several_keys():
    keys, columns = torch.tensor([7, 8, 7, -1]), torch.tensor([0, 0, 1, 1])
    row, column = match(torch.tensor([[7], [8], [9]]), keys, 3, columns).pairs(0)
    assert row.tolist() == [0, 0, 1]
    assert column.tolist() == [0, 1, 0]


def test_lists_are_as_long_as_the_longest():
    matches = match(torch.tensor([[0], [1], [2]]), torch.tensor([1, 0, 1]), 2)
    assert matches.listed().tolist() == [[1, -1], [0, 2], [-1, -1]]
