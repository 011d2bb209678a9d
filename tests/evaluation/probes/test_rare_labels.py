"""Rare labels: counted in the training split, weighed in the test split."""

import shutil

import pytest

from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


@pytest.fixture
def folder(beir, tmp_path):
    return shutil.copytree(beir, tmp_path / "beir")


def train(folder, rows):
    judged = "".join(f"q{query}\td{label}\t1\n" for query, label in rows)
    (folder / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")


def test_figures_are_shares_of_what_could_be_found(folder, bert, cache):
    subject = Subject(load_encoder(bert), bert, cache)
    train(folder, [(row, row) for row in range(3)])
    found = {
        one.metric: one.value for one in run_probe("rare-labels", subject, ProbeWish(data=folder))
    }
    assert set(found) >= {"precision_at_1", "psp_at_1", "psp_at_5"}
    assert all(0 <= value <= 1 for value in found.values())


def test_too_few_rows_are_refused(folder, bert, cache):
    train(folder, [(0, 0)])
    with pytest.raises(UserError, match="too few training rows"):
        run_probe("rare-labels", Subject(load_encoder(bert), bert, cache), ProbeWish(data=folder))
