import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.data.mixture import Blocks, Draw, Mixture, Permutation, mixture_weights


@given(st.integers(1, 3000), st.integers(0, 5), st.integers(0, 3))
def test_a_permutation_visits_every_row_once(size, seed, epoch):
    rows = Permutation(size, seed)(np.arange(size), epoch)
    assert sorted(rows.tolist()) == list(range(size))


def test_epochs_and_seeds_shuffle_differently():
    order = Permutation(1000, 0)(np.arange(1000), 0)
    assert (order != Permutation(1000, 0)(np.arange(1000), 1)).mean() > 0.9
    assert (order != Permutation(1000, 1)(np.arange(1000), 0)).mean() > 0.9
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


def test_a_permutation_of_a_billion_rows_needs_no_array_of_a_billion():
    rows = Permutation(10**9, 0)(np.array([0, 1, 10**9 - 1]), 0)
    assert len(set(rows.tolist())) == 3
    assert rows.max() < 10**9


def test_steps_of_an_epoch_cover_each_row_once_across_the_seam_of_batches():
    mixture = Mixture([30], [1.0], batch_size=7, num_steps=30, seed=3)
    rows = np.concatenate([mixture.draw(step).rows for step in range(30)])
    for epoch in range(7):
        assert sorted(rows[30 * epoch : 30 * epoch + 30].tolist()) == list(range(30))


def test_each_epoch_of_a_source_has_an_order_of_its_own():
    mixture = Mixture([100], [1.0], batch_size=10, num_steps=30, seed=0)
    rows = np.concatenate([mixture.draw(step).rows for step in range(30)]).reshape(3, 100)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (rows[one] != rows[other]).mean() > 0.9
    assert (rows[0] == Permutation(100, 0)(np.arange(100), 0)).all()


def test_sources_of_one_size_have_orders_of_their_own():
    mixture = Mixture([100, 100], [1.0, 1.0], batch_size=100, num_steps=20, seed=0)
    first = {draw.source: draw.rows for draw in map(mixture.draw, reversed(range(20)))}
    assert (first[0] != first[1]).mean() > 0.9


def test_a_draw_depends_on_the_step_alone():
    settings = {"batch_size": 8, "num_steps": 50, "seed": 1}
    first = Mixture([100, 60], [1.0, 1.0], **settings)
    second = Mixture([100, 60], [1.0, 1.0], **settings)
    expected = [first.draw(step) for step in range(50)]
    for step in (40, 3, 17):
        found = second.draw(step)
        assert found.source == expected[step].source
        assert found.rows.tolist() == expected[step].rows.tolist()


def test_sources_are_drawn_by_weight():
    mixture = Mixture([100, 100], [3.0, 1.0], batch_size=1, num_steps=1000, seed=0)
    share = np.mean([mixture.draw(step).source == 0 for step in range(1000)])
    assert share == pytest.approx(0.75, abs=0.05)


def test_weights_left_out_follow_the_exponent():
    assert mixture_weights([100, 400], [None, None], 0.5) == [10, 20]
    assert mixture_weights([100, 400], [None, None], 0.0) == [1, 1]
    assert mixture_weights([100, 400], [2.0, None], 1.0) == [2.0, 400]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_parts_of_parts_cover_each_row_of_a_step_once_and_are_even(rows, micro_batches, ranks):
    draw = Draw(0, 0, np.arange(rows))
    sizes, places = [], []
    for number in range(micro_batches):
        micro_batch = draw.part(number, micro_batches)
        parts = [micro_batch.part(rank, ranks) for rank in range(ranks)]
        sizes = [len(part.places) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        places += [place for part in parts for place in part.places]
    assert places == list(range(rows))


def test_seeds_draw_the_sources_in_different_orders():
    orders = [
        [mixture.draw(step).source for step in range(50)]
        for seed in (0, 1)
        for mixture in [Mixture([9, 9], [1.0, 1.0], batch_size=2, num_steps=50, seed=seed)]
    ]
    assert orders[0] != orders[1]


def test_a_consecutive_source_gives_rows_that_follow_one_another():
    mixture = Mixture(
        [23, 40], [1.0, 1.0], batch_size=[5, 8], num_steps=200, seed=0, consecutive=[True, False]
    )
    draws = [mixture.draw(step) for step in range(200)]
    blocks = [draw.rows for draw in draws if draw.source == 0]
    assert all((rows == rows[0] + np.arange(5)).all() for rows in blocks)
    for epoch in range(len(blocks) // 4):
        rows = np.concatenate(blocks[4 * epoch : 4 * epoch + 4])
        assert len(set(rows.tolist())) == 20
    assert set(np.concatenate(blocks).tolist()) == set(
        range(23)
    )  # the rest is another one each time
    others = [draw.rows for draw in draws if draw.source == 1]
    assert not any((np.diff(rows) == 1).all() for rows in others)


def test_a_block_of_all_rows_is_all_rows():
    assert Blocks(3, 8, seed=0)(np.arange(3), 0).tolist() == [0, 1, 2]
