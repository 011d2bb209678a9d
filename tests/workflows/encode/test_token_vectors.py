import numpy as np
import torch

from embedtrain.types import TokenEmbeddings, TokenVectors


def three_texts() -> TokenVectors:
    return TokenVectors(
        values=np.arange(12, dtype=np.float32).reshape(6, 2),
        lengths=np.array([1, 3, 2]),
        ids=np.arange(6),
        cls=np.arange(3, dtype=np.float32)[:, None],
    )


def test_a_part_holds_the_tokens_of_its_texts() -> None:
    part = three_texts().part(1, 3)
    assert part.values[:, 0].tolist() == [2, 4, 6, 8, 10]
    assert part.ids is not None
    assert part.ids.tolist() == [1, 2, 3, 4, 5]
    assert part.cls is not None
    assert part.cls.tolist() == [[1], [2]]


def test_selected_texts_come_in_the_order_asked_for() -> None:
    chosen = three_texts().tensors().select(torch.tensor([2, 0]))
    assert chosen.tokens[:, 0].tolist() == [8, 10, 0]
    assert chosen.lengths.tolist() == [2, 1]
    assert isinstance(chosen, TokenEmbeddings)
    assert chosen.ids is not None
    assert chosen.ids.tolist() == [4, 5, 0]
    assert chosen.cls is not None
    assert chosen.cls.tolist() == [[2], [0]]


def test_ids_take_bytes_only_where_scores_need_them() -> None:
    vectors = three_texts()
    exact = TokenVectors(vectors.values, vectors.lengths, vectors.ids, exact_match=True)
    assert vectors.nbytes == 6 * 2 * 4 + 3 * 4
    assert exact.nbytes == 6 * 2 * 4 + 6 * 8
