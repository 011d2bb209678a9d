import pytest

from embedtrain.errors import UserError
from embedtrain.ops.backend import load_fused, no_fused_kernel


def test_a_fused_operation_without_its_module_is_the_users_to_mend():
    with pytest.raises(UserError, match=r"telepathy\(backend='fused'\) needs the Triton kernels"):
        load_fused("telepathy")


def test_an_operation_without_a_kernel_says_what_to_use():
    assert "backend='chunked'" in str(no_fused_kernel("xtr_scores"))
