"""The words of sparse vectors, with vectors that are written down."""

import json
from dataclasses import dataclass

import pytest
from posting_toys import sparse
from sparse_toys import TEXTS

from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder
from embedtrain.models.sparse.words import column_names


@dataclass(frozen=True)
class Written(Subject):
    def encode(self, texts, role):
        assert role == "document"
        dim = self.model.dim
        return sparse({5: 1.0, 7: 3.0}, {5: 2.0}, {5: 1.0, 8: 0.5}, {}, dim=dim).part(0, len(texts))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, "dog"]))
    return path


def test_heaviest_common_and_dead_words_are_those_of_the_vectors(sparse_model, corpus, tmp_path):
    model = load_encoder(sparse_model)
    names, subject = column_names(model), Written(model, "toy", tmp_path)
    findings = run_probe("words", subject, ProbeWish(data=corpus))
    of_texts = [(one.setting, one.metric, one.value) for one in findings if "text " in one.setting]
    assert of_texts == [
        ("text 1", names[7], 3.0),
        ("text 1", names[5], 1.0),
        ("text 2", names[5], 2.0),
        ("text 3", names[5], 1.0),
        ("text 3", names[8], 0.5),
    ]
    common = {one.metric: one.value for one in findings if one.setting == "share of texts"}
    assert common == {names[5]: 0.75, names[7]: 0.25, names[8]: 0.25}
    figures = {one.metric: one.value for one in findings[-5:]}
    assert figures == {
        "entries": 1.25,
        "texts_without_entry": 0.25,
        "dead_words": 1 - 3 / model.dim,
        "ubiquitous_words": 1,
        "ubiquitous_entries": 0.6,
    }


def test_other_models_have_no_entries(bert, corpus, tmp_path):
    subject = Subject(load_encoder(bert), "dense", tmp_path)
    with pytest.raises(UserError, match="words looks at entries, which only sparse models have"):
        run_probe("words", subject, ProbeWish(data=corpus))
