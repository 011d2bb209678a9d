from importlib.util import find_spec

import pytest

from embedtrain.errors import UserError
from embedtrain.ops import backend
from embedtrain.ops.backend import load_fused


def test_a_fused_operation_without_its_module_is_the_users_to_mend():
    with pytest.raises(UserError, match=r"telepathy\(backend='fused'\) needs the Triton kernels"):
        load_fused("telepathy")


@pytest.mark.parametrize("operation", ["infonce", "maxsim"])
def test_the_kernels_are_looked_for_where_they_lie(operation, monkeypatch):
    imported = []
    monkeypatch.setattr(backend, "import_module", lambda name: imported.append(name) or pytest)
    load_fused(operation)
    assert find_spec(imported[0]) is not None
