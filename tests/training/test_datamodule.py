import numpy as np

from embedtrain.data.mixture import Cut, Mixture
from embedtrain.training.datamodule import BatchStream


def test_micro_batches_of_all_ranks_are_the_rows_of_the_step_each_once():
    mixture = Mixture([50], [1.0], batch_size=11, num_steps=4, seed=0)
    streams = [
        list(BatchStream(mixture, lambda draw: draw, 1, 4, Cut(3, rank, 2))) for rank in range(2)
    ]
    assert [len(draws) for draws in streams] == [9, 9]
    for step in range(1, 4):
        places = [
            place
            for number in range(3)
            for draws in streams
            for place in draws[3 * (step - 1) + number].places
        ]
        assert places == list(range(11))
        for draws in streams:
            for draw in draws[3 * (step - 1) : 3 * step]:
                assert draw.step == step
                assert np.array_equal(draw.rows, mixture.draw(step).rows)
