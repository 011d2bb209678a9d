"""The tests check the types and shapes of what the package's functions are given."""

import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation

from embedtrain.models.pooling import pool
from embedtrain.types import RetrievalOutputs
from embedtrain.units import show_bytes


def test_a_function_without_arrays_checks_types():
    with pytest.raises(BeartypeCallHintParamViolation):
        show_bytes("3")


def test_a_function_of_arrays_checks_shapes():
    with pytest.raises(Exception, match="Type-check error") as refused:
        pool(torch.zeros(3), torch.tensor([3]), "mean")
    assert "states" in str(refused.value)


def test_what_a_dataclass_holds_is_checked():
    with pytest.raises(Exception, match="Type-check error"):
        RetrievalOutputs(query=torch.zeros(2, 3), document=torch.zeros(2, 3), relevance=1.0)
