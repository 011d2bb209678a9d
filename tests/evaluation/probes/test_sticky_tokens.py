"""The detector of sticky tokens: its score by hand, its pairs, and a planted token that it must find."""

import json
import math
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.probes.sticky_tokens import (
    PLACES,
    REPEATS,
    SCORE_WEIGHTS,
    rank_tokens,
    read_sentences,
    score_token,
    screen,
    stickiness,
    verified_share,
)
from embedtrain.evaluation.probes.token_trial import Trial, mean_token_cosine, usable_tokens
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.backbone.long_positions import find_table
from embedtrain.models.build import build_encoder, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig

PLANTED = "jumps"
USED = [
    *("red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "over", "under", "near"),
    *("the", "a", "small", "large", "house", "tree"),
]


@pytest.fixture
def texts(sentences, write_jsonl):
    long = [text for text in sentences if len(text.split()) > 3 and PLANTED not in text]
    return write_jsonl([{"text": text} for text in long], "texts.jsonl")


def plant(path, *, planted=True):
    """Give one token a huge multiple of the mean embedding of the words that texts are made of."""
    model = load_encoder(path)
    table = model.backbone.get_input_embeddings().weight
    used = model.tokenizer.convert_tokens_to_ids(USED)
    with torch.no_grad():
        if (positions := find_table(model.backbone)) is not None:
            positions[1].weight.zero_()  # what is inserted in front would move all others
        table *= 4
        table += torch.linspace(-0.1, 0.1, table.shape[1])  # what words have in common
        if planted:
            table[model.tokenizer.convert_tokens_to_ids(PLANTED)] = 100 * table[used].mean(0)
    return model


def trial_of(model, path, size=20):
    return Trial(model, read_sentences(path, model, size), np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_planted_token_is_found_first(kind, request, texts, cache):
    path = request.getfixturevalue(kind)
    wish = ProbeWish(data=texts, size=12)
    findings = run_probe("sticky-tokens", Subject(plant(path), "x", cache), wish)
    scores = [finding for finding in findings if finding.metric == "score"]
    assert scores[0].setting == f"1. {PLANTED!r}"
    assert [one.value for one in scores] == sorted((one.value for one in scores), reverse=True)
    shares = [one.value for one in findings if one.metric == "share_of_pairs_drawn_together"]
    assert shares[0] > 0.5
    assert all(0 <= share <= 1 for share in shares)
    usual = run_probe("sticky-tokens", Subject(plant(path, planted=False), "x", cache), wish)
    assert usual[2].setting != f"1. {PLANTED!r}"


def test_late_interaction_is_probed_by_its_own_similarity(late_interaction, texts, cache):
    subject = Subject(load_encoder(late_interaction), "x", cache)
    findings, again = (
        run_probe("sticky-tokens", subject, ProbeWish(data=texts, size=8)) for _ in range(2)
    )
    assert findings == again
    assert len(findings) == 2 + 2 * 10
    trial = trial_of(subject.model, texts)
    assert trial.similarities.max() <= 1 + 1e-6  # a mean over vectors of the best cosine
    same = np.arange(3)
    assert trial._similarities(trial.vectors, same, same) == pytest.approx([1, 1, 1], abs=1e-6)


def test_all_tokens_meet_two_pairs_and_the_best_fifth_the_others(bert, texts, monkeypatch):
    trial = trial_of(load_encoder(bert), texts)
    tokens, tried = usable_tokens(trial.model), {}
    changes = trial.changes

    def counted(some, pairs, places, repeats):
        key = len(pairs), len(places), len(repeats)
        tried[key] = tried.get(key, 0) + len(some)
        return changes(some, pairs, places, repeats)

    monkeypatch.setattr(trial, "changes", counted)
    monkeypatch.setattr("embedtrain.evaluation.probes.sticky_tokens.VERIFIED", 2)
    rank_tokens(trial, tokens)
    fifth, fiftieth = math.ceil(len(tokens) / 5), max(2, round(len(tokens) / 50))
    screened = {(2, 1, 1): len(tokens) + fifth, (3, 2, 1): fifth}  # in front, and behind
    assert tried == {**screened, (5, 2, 7): fiftieth, (5, 1, 8): fiftieth}, "no text comes twice"


def test_the_score_of_a_screened_token_is_that_of_all_its_changes(bert, texts):
    trial, other = (trial_of(load_encoder(bert), texts) for _ in range(2))
    token, pairs = trial.model.tokenizer.convert_tokens_to_ids("cat"), trial.unlike_pairs()
    known = screen(trial, [token], pairs, PLACES[:2])[0]
    whole = other.changes([token], other.unlike_pairs(), PLACES, REPEATS)
    expected = stickiness(whole, SCORE_WEIGHTS)[0]
    assert score_token(trial, token, pairs, known) == pytest.approx(expected, rel=1e-4)


def test_the_score_weighs_falls_against_rises():
    changes = np.zeros((2, 1, 3, 2))
    changes[0, 0, :, 0] = [-0.4, -0.2, 0.0]  # one of two repeats; weights .5, .3, .2
    changes[1, 0, 0] = [-0.1, 0.3]
    falls = 0.5 * 0.2 + 0.3 * 0.1 + 0.1 * (0.5 * 0.5 + 0.3 * 0.5)
    mixed = (0.5 * 0.05 + 0.1 * 0.25) / (0.5 * 0.15 + 0.05 * 0.25 + 0.01)
    assert stickiness(changes, (0.5, 0.3, 0.2)).tolist() == pytest.approx([falls / 0.01, mixed])


def test_tokens_go_where_they_should(bert, texts):
    trial = trial_of(load_encoder(bert), texts)
    ids = trial.sentences[0]
    front, behind = (trial._inserted(ids, 7, place, 2).tolist() for place in ("front", "behind"))
    assert front == [ids[0], 7, 7, *ids[1:]]
    assert behind == [*ids[:-1], 7, 7, ids[-1]]
    for _ in range(20):
        anywhere = trial._inserted(ids, 7, "random", 3).tolist()
        assert (anywhere[0], anywhere[-1]) == (ids[0], ids[-1])
        assert [one for one in anywhere if one != 7] == ids.tolist()


def test_changes_are_those_of_the_distance(bert, texts):
    model = load_encoder(bert)
    trial = trial_of(model, texts)
    token = model.tokenizer.convert_tokens_to_ids("cat")
    pairs = trial.unlike_pairs()[:2]
    changes = trial.changes([token], pairs, ("behind",), (1, 2))[0, :, 0]
    for pair, found in zip(pairs, changes, strict=True):
        text = model.tokenizer.decode(pair.changed, skip_special_tokens=True)
        other = model.tokenizer.decode(trial.sentences[pair.other], skip_special_tokens=True)
        rows = [text, f"{text} cat", f"{text} cat cat", other]
        tokens = model.tokenization.encode(rows, "document")
        embedded = model.embed(tokens, Execution()).double().detach().numpy()
        before, once, twice = 1 - embedded[:3] @ embedded[3]
        assert found == pytest.approx([once - before, twice - before], abs=1e-6)
        assert pair.distance == pytest.approx(before, abs=1e-6)


def test_pairs_are_unlike_and_different(bert, texts):
    trial = trial_of(load_encoder(bert), texts)
    pairs = trial.unlike_pairs()
    similarities = [1 - pair.distance for pair in pairs]
    assert similarities[0] == pytest.approx(trial.similarities.min())
    assert similarities == sorted(similarities)
    assert similarities[-1] <= np.median(trial.similarities) + 1e-9
    assert len({(pair.changed.tobytes(), pair.other) for pair in pairs}) == 5


def test_tokens_are_usable_if_their_text_gives_them_back(bert):
    model = load_encoder(bert)
    tokens = usable_tokens(model)
    names = model.tokenizer.convert_ids_to_tokens(tokens)
    assert PLANTED in names
    assert not {"[CLS]", "[MASK]", "##d"} & set(names)


def test_the_mean_cosine_of_tokens_is_that_of_all_pairs(bert):
    model = load_encoder(bert)
    table = model.backbone.get_input_embeddings().weight.detach()
    rows = torch.nn.functional.normalize(table[table.norm(dim=1) > 0].double(), dim=1)
    every = rows @ rows.T
    count = len(rows)
    expected = float((every.sum() - every.trace()) / (count * (count - 1)))
    assert mean_token_cosine(model) == pytest.approx(expected)


def test_the_command_line_prints_and_writes_the_tokens(bert, texts, tmp_path):
    output = tmp_path / "sticky.json"
    arguments = ["probe", bert, "sticky-tokens", "--data", str(texts), "--size", "8"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(output)])
    assert done.exit_code == 0, done.output
    findings = json.loads(output.read_text())["findings"]
    assert [one["metric"] for one in findings[:2]] == ["strongly_sticky", "weakly_sticky"]
    assert len(findings) == 2 + 2 * 10


def test_a_model_that_scores_by_a_network_is_refused(bert, texts, cache):
    config = DenseConfig(backbone=bert, interaction={"hidden": 8})
    subject = Subject(build_encoder(config, "cpu"), "x", cache)
    with pytest.raises(UserError, match="sticky-tokens compares inner products"):
        run_probe("sticky-tokens", subject, ProbeWish(data=texts, size=8))


def test_data_that_cannot_be_used_is_the_users_mistake(bert, write_jsonl, cache, tmp_path):
    save_encoder(load_encoder(bert), tmp_path / "m")
    subject = Subject(load_encoder(bert), "x", cache)
    for rows, message in (
        ([{"title": "x"}], "has no text"),
        (
            [{"text": "red cat"}, {"text": "blue"}],
            "has fewer than 5 sentences of at most 56 tokens",
        ),
    ):
        wish = ProbeWish(data=write_jsonl(rows, "d.jsonl"))
        with pytest.raises(UserError, match=message):
            run_probe("sticky-tokens", subject, wish)


def test_a_pair_is_drawn_together_where_its_distance_falls_on_average():
    """Pair 0 falls in front and behind, pair 1 at random places alone, if once by more than it rises."""
    places = [[[-3.0, 1.0], [-2.0, 1.0], [-1.0, 3.0]], [[1.0, 1.0], [-1.0, 2.0], [-3.0, 1.0]]]
    trial = Mock(Trial, changes=lambda *_: np.array([places]))
    assert verified_share(trial, 7, []) == pytest.approx(0.5)
