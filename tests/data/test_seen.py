from contextlib import closing

import numpy as np
import pytest

from embedtrain.data import seen
from embedtrain.data.seen import Seen


@pytest.mark.parametrize("num_marks", [2**16, 2], ids=["enough", "too few"])
def test_the_rows_of_all_ids_that_were_added_are_found_and_no_others(
    num_marks, tmp_path, monkeypatch
):
    monkeypatch.setattr(seen, "NUM_MARKS", num_marks)
    ids = np.random.default_rng(0).integers(0, 2**63 - 1, 3000).tolist()
    with closing(Seen(tmp_path / "seen.sqlite")) as found:
        assert found.rows("query", ids) == {}
        found.add("query", [(i, row) for row, i in enumerate(ids[:2000])])
        assert found.rows("query", ids) == {i: row for row, i in enumerate(ids[:2000])}
        assert found.rows("document", ids) == {}
        found.add("document", [])
