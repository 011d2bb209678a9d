"""The tests check the types and shapes of what the package's functions are given."""

import checked_calls
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation
from checked_calls import check_types
from jaxtyping import Float
from torch import Tensor

from embedtrain.models.pooling import pool
from embedtrain.types import RetrievalOutputs
from embedtrain.units import show_bytes


def test_a_function_without_arrays_checks_types():
    with pytest.raises(BeartypeCallHintParamViolation):
        show_bytes("3")


def test_a_function_of_arrays_checks_shapes():
    with pytest.raises(BeartypeCallHintParamViolation, match="states"):
        pool(torch.zeros(3), torch.tensor([3]), "mean")


def test_axes_of_one_name_have_one_size_also_in_what_is_returned():
    def cut(rows: Float[Tensor, "n d"], other: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return rows[:2, 0]

    checked = check_types(cut, typechecker=beartype)
    assert checked(torch.zeros(2, 3), torch.zeros(2, 3)).shape == (2,)
    assert checked(torch.zeros(2, 4), torch.zeros(2, 4)).shape == (
        2,
    )  # each call has sizes of its own
    with pytest.raises(BeartypeCallHintParamViolation, match="other") as refused:
        checked(torch.zeros(2, 3), torch.zeros(3, 3))
    assert "n=2\nd=3" in refused.value.__notes__[0]
    with pytest.raises(BeartypeCallHintReturnViolation):
        checked(torch.zeros(3, 3), torch.zeros(3, 3))


def test_what_a_dataclass_holds_is_checked():
    with pytest.raises(BeartypeCallHintParamViolation, match="relevance"):
        RetrievalOutputs(query=torch.zeros(2, 3), document=torch.zeros(2, 3), relevance=1.0)


@pytest.mark.parametrize("turn", [0, 1])
def test_each_test_checks_the_first_calls_anew(turn):
    for _ in range(checked_calls.CALLS):
        assert show_bytes(turn) == f"{turn} bytes"
    for _ in range(checked_calls.EVERY - 1):
        with pytest.raises(TypeError, match="bad operand"):
            show_bytes("3")  # not checked
    with pytest.raises(BeartypeCallHintParamViolation):
        show_bytes("3")
