"""The probe of associations: its own lists, the user's, and what is refused."""

import json

import numpy as np
import pytest

from embedtrain.contract.spans import mark
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.associations import associations, effect_size
from embedtrain.evaluation.probes.associations import TEMPLATES
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import build_dense, load_encoder
from embedtrain.models.dense.config import DenseConfig

LISTS = {
    "targets": {"animals": ["cat", "dog"], "things": ["house", "tree"]},
    "attributes": {"motion": ["runs", "jumps"], "rest": ["sleeps", "under"]},
}


class Planted:
    """Stands for a model: what is near the first idea has its vector; others have the second's."""

    name = "planted"
    model = None

    def features(self, texts, _):
        near = ("cat", "dog", "runs", "jumps")
        rows = [[1.0, 0.0] if any(word in text for word in near) else [0.0, 1.0] for text in texts]
        return np.array(rows, dtype=np.float32) + np.linspace(0, 0.01, len(texts))[:, None]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "lists.json"
    file.write_text(json.dumps(LISTS))
    return file


def test_a_planted_association_is_found_in_words_and_sentences(path, unchecked_types):
    found = run_probe("associations", Planted(), ProbeWish(data=path))
    values = {(one.setting.split(": ")[1], one.metric): one.value for one in found}
    assert values["words", "effect"] > 1.7
    assert values["words", "p"] == pytest.approx(1 / 6)
    assert values["sentences", "effect"] > 1.7
    assert values["sentences", "deviation of the effect"] < 0.01
    assert found[0].setting.startswith("animals to motion, things to rest")


def test_it_has_lists_of_its_own(bert, cache):
    found = run_probe("associations", Subject(load_encoder(bert), bert, cache), ProbeWish())
    assert all(np.isfinite(one.value) for one in found)
    assert "flowers to pleasant" in found[0].setting


def test_a_word_within_a_sentence_has_the_states_of_its_own_tokens(path, bert, cache):
    found = run_probe("associations", Subject(load_encoder(bert), bert, cache), ProbeWish(path))
    values = {(one.setting.split(": ")[1], one.metric): one.value for one in found}
    model = build_dense(DenseConfig(backbone=bert, spans="mean")).eval()
    effects = []
    for template in TEMPLATES:
        start, vectors = template.index("{}"), []
        for words in (*LISTS["targets"].values(), *LISTS["attributes"].values()):
            texts = [mark(template.format(one), [start, start + len(one)]) for one in words]
            vectors.append(encode_texts(model, texts, "query").astype(np.float64))
        both = (associations(one, *vectors[2:]) for one in vectors[:2])
        effects.append(effect_size(*both))
    assert values["words in sentences", "effect"] == pytest.approx(np.mean(effects), abs=1e-5)
    assert values["sentences", "effect"] != pytest.approx(np.mean(effects), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": {"animals": ["cat", "dog"]}}, "targets"),
        ({"targets": {"animals": ["cat", "dog"], "things": ["a", "b", "c"]}}, "2 and 3 words"),
        ({"attributes": {"motion": ["runs"], "rest": ["sleeps", "lies"]}}, "attributes"),
    ],
)
def test_lists_of_another_form_are_refused(path, change, message, bert, cache):
    path.write_text(json.dumps(LISTS | change))
    subject = Subject(load_encoder(bert), bert, cache)
    with pytest.raises(UserError, match=f"no pair of word lists.*{message}"):
        run_probe("associations", subject, ProbeWish(data=path))
