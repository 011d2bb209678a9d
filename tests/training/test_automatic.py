"""What `trainer: auto` chooses: by rows and model, within bounds, and never over what was given."""

import pytest

from embedtrain.errors import UserError
from embedtrain.training.automatic import (
    MOST_EPOCHS,
    Facts,
    choose_trainer,
    count_measurements,
)

MINILM = 22_700_000


def facts(rows, **others):
    known = {"queries": rows, "rows": rows, "smallest": rows, "parameters": MINILM}
    return Facts(**known | others)


def test_the_measured_cases_come_out_as_they_were_measured():
    scifact = choose_trainer(facts(919), {})
    assert (scifact["learning_rate"], scifact["batch_size"], scifact["steps"]) == (5e-5, 16, 115)
    assert choose_trainer(facts(4_000), {})["learning_rate"] == 1e-4
    some = choose_trainer(facts(512), {})
    assert (some["learning_rate"], some["batch_size"], some["steps"]) == (5e-5, 16, 64)
    few = choose_trainer(facts(512, queries=78), {})
    assert (few["learning_rate"], few["batch_size"], few["steps"]) == (2e-5, 32, 24)
    written = choose_trainer(facts(768, synthetic=True), {})
    assert (written["learning_rate"], written["batch_size"], written["steps"]) == (5e-5, 32, 24)


@pytest.mark.parametrize("rows", [16, 57, 199, 200, 1_000, 9_999, 50_000, 10**6])
def test_batches_and_passes_are_bounded(rows):
    chosen = choose_trainer(facts(rows), {})
    assert 2 <= chosen["batch_size"] <= rows // 4
    assert chosen["steps"] * chosen["batch_size"] <= MOST_EPOCHS * rows
    assert 0.1 <= chosen["warmup_ratio"] <= 0.5


def test_larger_models_and_other_kinds_learn_more_slowly():
    rates = [
        choose_trainer(facts(1_000, **other), {})["learning_rate"]
        for other in (
            {"kind": "static"},
            {},
            {"parameters": 110e6},
            {"kind": "cross_encoder"},
            {"parameters": 2e9},
        )
    ]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)
    adapters = choose_trainer(facts(1_000, parameters=2e9, adapters=True), {})
    assert adapters["learning_rate"] == 4 * rates[-1]


def test_what_is_given_stands_and_the_rest_is_made_for_it():
    chosen = choose_trainer(facts(1_000), {"batch_size": 10, "learning_rate": 3e-6})
    assert (chosen["batch_size"], chosen["learning_rate"], chosen["steps"]) == (10, 3e-6, 200)
    assert "steps" not in choose_trainer(facts(1_000), {"epochs": 1.0})
    assert choose_trainer(facts(1_000), {"steps": 7})["steps"] == 7
    assert choose_trainer(facts(10**5, texts_measured=10), {"patience": 3})["patience"] == 3


def test_a_batch_can_be_shared_by_devices_and_fits_the_smallest_source():
    assert choose_trainer(facts(4_000), {}, unit=24)["batch_size"] == 48
    assert choose_trainer(facts(4_000, smallest=20), {})["batch_size"] == 16


def test_few_rows_are_refused():
    with pytest.raises(UserError, match="needs 16 rows; got 15"):
        choose_trainer(facts(15), {})


def test_validation_takes_a_bounded_part_of_the_time():
    assert count_measurements(facts(919, texts_measured=2_000), 43, 64) == 4, "never fewer"
    assert count_measurements(facts(10**5, texts_measured=2_000), 1_000, 128) == 20
    assert count_measurements(facts(10**4, texts_measured=6_000), 300, 64) == 4
    assert count_measurements(facts(10**4, texts_measured=2_400), 300, 64) == 12
    assert count_measurements(facts(16, texts_measured=100), 2, 4) == 2
    assert choose_trainer(facts(919, texts_measured=2_000), {})["patience"] is None
    assert choose_trainer(facts(10**5, texts_measured=2_000), {})["patience"] == 10
