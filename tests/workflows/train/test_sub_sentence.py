"""The recipe of sub-sentence embeddings: it runs, chunks change nothing, and spans that mean the same come together."""

import numpy as np
import pytest

from embedtrain.models.build import load_dense
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.resources import resource
from embedtrain.workflows.doctor import diagnose
from embedtrain.workflows.encode.spans import encode_spans
from embedtrain.workflows.train import train

SUBJECTS, VERBS = ["red cat", "small dog", "large bird", "green tree"], ["sleeps", "jumps", "runs"]


def sentence(first: int, second: int) -> tuple[str, list[list[int]]]:
    """Two propositions in a sentence; each in another order of words elsewhere."""
    one = f"the {SUBJECTS[first % 4]} {VERBS[first // 4]}"
    other = f"{VERBS[second // 4]} a {SUBJECTS[second % 4]}"
    return f"{one} near {other}", [[0, len(one)], [len(one) + 6, len(one) + 6 + len(other)]]


@pytest.fixture
def recipe(bert, write_jsonl):
    rows, generator = [], np.random.default_rng(0)
    for _ in range(60):
        same, one, other = generator.choice(12, 3, replace=False).tolist()
        text, spans = sentence(same, one)
        answer, places = sentence(other, same)
        rows.append(
            {
                "query": {"text": text, "span": spans[0]},
                "positive": {"text": answer, "span": places[1]},
                "negatives": [{"text": answer, "span": [places[0]]}],
            }
        )
    overrides = [
        f"model.backbone={bert}",
        f"data.sources=[{{path: {write_jsonl(rows)}}}]",
        *("trainer.epochs=null", "trainer.steps=25", "trainer.batch_size=12"),
        *("trainer.precision=fp32", "trainer.learning_rate=3.0e-3", "trainer.chunk_tokens=120"),
        *("trainer.rematerialize=true", "model.query.length=40", "model.document.length=40"),
    ]
    return load_recipe(resource("recipes") / "dense" / "sub_sentence.yaml", overrides)


def test_its_chunks_give_the_plain_gradients(recipe):
    diagnosis = diagnose(recipe)
    assert diagnosis.healthy, diagnosis
    assert {"span_mlp"} <= {group.name for group in diagnosis.groups if group.norm > 0}


def test_a_run_brings_spans_together_that_mean_the_same(recipe, write_jsonl, tmp_path):
    run = train(recipe, tmp_path / "run")
    losses = np.genfromtxt(run.metrics, delimiter=",", names=True)["trainloss"]
    assert losses[-1] < 0.7 * losses[0]
    pairs = [(number, (number + 5) % 12) for number in range(12)]
    sides = [sentence(one, other) for one, other in pairs]
    sides += [sentence(other, one) for one, other in pairs]
    path = write_jsonl([{"text": text, "spans": spans} for text, spans in sides], "spans.jsonl")
    encode_spans(str(run.model), path, tmp_path / "vectors.npy")
    vectors = np.load(tmp_path / "vectors.npy").reshape(24, 2, 32)
    queries, answers = (
        vectors[:12, 0],
        vectors[12:, 1],
    )  # what comes first in one is second in the other
    found = (queries @ answers.T).argmax(1)
    assert (found == np.arange(12)).mean() >= 0.8
    assert load_dense(str(run.model)).contract.spans == "mlp"
    assert "Other libraries have no module" in (run.model / "README.md").read_text()
