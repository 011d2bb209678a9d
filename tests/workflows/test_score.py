import json
import signal

import numpy as np
import pytest
from forks import fork, signal_on_call
from pydantic import ValidationError

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.pair_scorers import detect_kind
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense, load_encoder
from embedtrain.ops.similarity import all_scores
from embedtrain.workflows import score as workflow
from embedtrain.workflows.score import score
from embedtrain.workflows.stages import ScoreStage


def examples_of(path):
    return list(open_source(SourceConfig(path=str(path))).examples())


def test_dense_scores_are_inner_products_in_the_order_of_the_documents(bert, pairs, tmp_path):
    assert detect_kind(bert) == "encoder"
    rows = score(bert, SourceConfig(path=str(pairs)), tmp_path / "scored.jsonl")
    before, after = examples_of(pairs), examples_of(tmp_path / "scored.jsonl")
    assert rows == len(before) == len(after)
    model = load_dense(bert)
    for old, new in list(zip(before, after, strict=True))[:5]:
        assert (old.query, old.positives, old.negatives) == (
            new.query,
            new.positives,
            new.negatives,
        )
        query = encode_texts(model, [old.query], "query")
        documents = encode_texts(model, [*old.positives, *old.negatives], "document")
        assert new.scores == pytest.approx((documents @ query[0]).tolist(), abs=2e-6)


def test_late_interaction_scores_are_maxsim(late_interaction, pairs, tmp_path):
    score(late_interaction, SourceConfig(path=str(pairs)), tmp_path / "scored.jsonl")
    model = load_encoder(late_interaction)
    for example in examples_of(tmp_path / "scored.jsonl")[:3]:
        texts = [*example.positives, *example.negatives]
        query = encode_texts(model, [example.query], "query").tensors()
        expected = all_scores(query, encode_texts(model, texts, "document").tensors())
        assert example.scores == pytest.approx(expected[0].tolist(), abs=2e-5)


def test_cross_encoder_scores_do_not_depend_on_their_batch(cross_encoder, pairs, tmp_path):
    assert detect_kind(cross_encoder) == "cross_encoder"
    score(cross_encoder, SourceConfig(path=str(pairs)), tmp_path / "scored.jsonl")
    alone = CrossEncoder(cross_encoder)
    for example in examples_of(tmp_path / "scored.jsonl")[:5]:
        texts = [*example.positives, *example.negatives]
        expected = [float(alone.logits([(example.query, text)])[0]) for text in texts]
        assert example.scores == pytest.approx(expected, abs=2e-6)
    assert np.allclose(
        alone.probabilities([("a", "b")]), 1 / (1 + np.exp(-alone.logits([("a", "b")])))
    )


def test_a_first_stage_is_mixed_in_as_z_scores_of_each_row(cross_encoder, bert, pairs, tmp_path):
    data = SourceConfig(path=str(pairs))
    score(cross_encoder, data, tmp_path / "teacher.jsonl")
    score(bert, data, tmp_path / "first.jsonl")
    score(cross_encoder, data, tmp_path / "mixed.jsonl", first=bert, share=0.75)
    parts = (examples_of(tmp_path / f"{name}.jsonl") for name in ("teacher", "first", "mixed"))
    for teacher, first, mixed in zip(*parts, strict=True):
        one, other = (
            (np.array(row.scores) - np.mean(row.scores)) / np.std(row.scores)
            for row in (teacher, first)
        )
        assert mixed.scores == pytest.approx((0.75 * one + 0.25 * other).tolist(), abs=1e-3)


def test_a_share_of_nothing_is_refused(cross_encoder, pairs, tmp_path):
    with pytest.raises(UserError, match="--blend needs --first"):
        score(cross_encoder, SourceConfig(path=str(pairs)), tmp_path / "scored.jsonl", share=0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_that_is_no_mixture_is_refused(cross_encoder, bert, pairs, tmp_path, share):
    with pytest.raises(UserError, match="--blend must lie between 0 and 1"):
        score(
            cross_encoder,
            SourceConfig(path=str(pairs)),
            tmp_path / "scored.jsonl",
            first=bert,
            share=share,
        )
    assert not list(tmp_path.glob("scored*"))


def test_a_stage_that_mixes_says_with_what():
    with pytest.raises(ValidationError, match="blend needs first"):
        ScoreStage(teacher="a", data="b", blend=0.25)
    stored = ScoreStage(teacher="a", data="b").model_dump()
    assert ScoreStage.model_validate(stored).blend is None  # as a pipeline that goes on reads it


def test_a_killed_scoring_goes_on_and_ends_with_the_same_bytes(
    cross_encoder, pairs, tmp_path, monkeypatch
):
    monkeypatch.setattr(workflow, "EXAMPLES_PER_BLOCK", 8)
    data = SourceConfig(path=str(pairs))
    score(cross_encoder, data, tmp_path / "whole.jsonl")

    def work():
        signal_on_call(CrossEncoder, "logits", 3)
        score(cross_encoder, data, tmp_path / "out.jsonl")

    assert fork(work).returncode == -signal.SIGKILL
    partial = tmp_path / "out.partial"
    assert len(partial.read_text().splitlines()) == 16
    with partial.open("a") as file:
        file.write(json.dumps({"half": "a line"})[:7])
    score(cross_encoder, data, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.fingerprint"))


def test_a_teacher_that_is_neither_is_refused(tmp_path, pairs):
    with pytest.raises(UserError, match=r"has no config\.json"):
        score(str(tmp_path), SourceConfig(path=str(pairs)), tmp_path / "scored.jsonl")
