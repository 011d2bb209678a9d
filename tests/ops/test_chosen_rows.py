import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtrain.ops.chosen_rows import chosen_rows

sizes = st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any)


@settings(max_examples=30)
@given(sizes, st.data())
def test_rows_and_gradients_are_those_of_parts_joined_chosen_and_split(sizes, data):
    parts = [torch.randn(size, 3, dtype=torch.float64, requires_grad=True) for size in sizes]
    orders = data.draw(
        st.lists(st.lists(st.integers(0, sum(sizes) - 1), max_size=6), min_size=1, max_size=3)
    )
    orders = [torch.tensor(order, dtype=torch.int64) for order in orders]
    found = chosen_rows(parts, *orders)
    wanted = [torch.cat(parts)[order] for order in orders]
    assert all(map(torch.equal, found, wanted))
    read = range(data.draw(st.integers(1, len(orders))))  # the others get no gradient
    weights = [torch.randn_like(part) for part in wanted]
    losses = [sum((result[k] * weights[k]).sum() for k in read) for result in (found, wanted)]
    ours, theirs = (torch.autograd.grad(loss, parts) for loss in losses)
    assert all(map(torch.allclose, ours, theirs))


def test_a_part_that_is_not_trained_gets_no_gradient():
    parts = [torch.ones(2, 3), torch.ones(1, 3, requires_grad=True)]
    (found,) = chosen_rows(parts, torch.tensor([2, 0, 2]))
    found.sum().backward()
    assert parts[0].grad is None
    assert parts[1].grad.tolist() == [[2.0, 2.0, 2.0]]
