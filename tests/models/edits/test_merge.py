import math

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models.edits.merge import merge_weights

METHODS = ("linear", "slerp", "task_vectors", "delta")


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(3, 4, generator=generator),
        "b": torch.randn(5, generator=generator),
        "places": torch.arange(3),
    }


def test_a_soup_is_the_weighted_mean() -> None:
    one, other = weights(0), weights(1)
    found = merge_weights([one, other], [3.0, 1.0], "linear")
    for name in ("a", "b"):
        torch.testing.assert_close(found[name], 0.75 * one[name] + 0.25 * other[name])
    assert found["places"].equal(one["places"])


@pytest.mark.parametrize("method", METHODS)
def test_identical_models_merge_to_themselves(method) -> None:
    one, base = weights(0), weights(2)
    shares = [0.5, 0.5]
    found = merge_weights([one, weights(0)], shares, method, base)
    torch.testing.assert_close(found["a"], one["a"])


@pytest.mark.parametrize("method", ["task_vectors", "delta"])
def test_one_model_alone_is_returned(method) -> None:
    found = merge_weights([weights(0)], [1.0], method, weights(2))
    torch.testing.assert_close(found["a"], weights(0)["a"])


def test_the_arc_ends_at_its_models_and_keeps_the_length_of_unit_tensors() -> None:
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    models = [{"a": one}, {"a": other}]
    half = merge_weights(models, [0.5, 0.5], "slerp")["a"]
    torch.testing.assert_close(half, torch.full((2,), math.sqrt(0.5)))
    torch.testing.assert_close(merge_weights(models, [1.0, 0.0], "slerp")["a"], one)
    torch.testing.assert_close(merge_weights(models, [0.0, 1.0], "slerp")["a"], other)
    same = merge_weights([{"a": one}, {"a": 3 * one}], [0.5, 0.5], "slerp")["a"]
    torch.testing.assert_close(same, 2 * one)
    nothing = merge_weights([{"a": 0 * one}, {"a": one}], [0.5, 0.5], "slerp")["a"]
    torch.testing.assert_close(nothing, one / 2)


def test_a_task_vector_can_be_taken_away_again() -> None:
    base, one = weights(2), weights(0)
    more = merge_weights([one], [2.0], "task_vectors", base)["a"]
    torch.testing.assert_close(more, 2 * one["a"] - base["a"])
    less = merge_weights([one], [-1.0], "task_vectors", base)["a"]
    torch.testing.assert_close(less, 2 * base["a"] - one["a"])


@pytest.mark.parametrize("granularity", ["tensor", "row", "element"])
def test_who_moved_further_decides_more(granularity) -> None:
    base = {"a": torch.zeros(2, 2)}
    one = {"a": torch.tensor([[1.0, 0.0], [3.0, 1.0]])}
    other = {"a": torch.tensor([[0.0, 2.0], [0.0, 1.0]])}
    found = merge_weights([one, other], [1.0, 1.0], "delta", base, granularity)["a"]

    def share(mine: float, theirs: float) -> float:
        return mine / (mine + theirs)

    first = {
        "tensor": [[share(5, 3)] * 2] * 2,
        "row": [[share(1, 2)] * 2, [share(4, 1)] * 2],
        "element": [[1.0, 0.0], [1.0, 0.5]],
    }[granularity]
    a = torch.tensor(first)
    torch.testing.assert_close(found, a * one["a"] + (1 - a) * other["a"])


def test_where_nobody_moved_the_base_stays() -> None:
    base = weights(2)
    found = merge_weights([weights(2), weights(2)], [1.0, 1.0], "delta", base, "element")
    torch.testing.assert_close(found["a"], base["a"])


@pytest.mark.parametrize(
    ("models", "shares", "method", "message"),
    [
        (2, [1.0], "linear", "for each of the 2 models"),
        (2, [1.0, 1.0], "delta", "--base is missing"),
        (3, [1.0] * 3, "slerp", "two models"),
        (2, [-1.0, 1.0], "linear", "must not be negative"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(models, shares, method, message) -> None:
    with pytest.raises(UserError, match=message):
        merge_weights([weights(i) for i in range(models)], shares, method)


def test_models_of_other_shapes_are_refused() -> None:
    with pytest.raises(UserError, match="names or shapes"):
        merge_weights([weights(0), {"a": torch.zeros(2)}], [1.0, 1.0], "linear")
