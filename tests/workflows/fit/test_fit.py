"""The whole way, on toys: what is better ships, what is not does not, and a killed run goes on."""

import json
import re
import signal

import pytest
import torch
from forks import embedtrain, signal_on_call
from page_reader import read
from sentence_toys import sentence

from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows.fit.run import fit
from embedtrain.workflows.fit.wish import FitWish


def write_pairs(path, *, answers: bool):
    """Write rows: a query is three words of what answers it, or of nothing that does."""
    generator = torch.Generator().manual_seed(1)
    documents = [sentence(generator, 8) for _ in range(240)]
    with path.open("w", encoding="utf-8") as file:
        for document in documents:
            words = (document if answers else sentence(generator, 8)).split()
            order = torch.randperm(len(words), generator=generator)[:3].tolist()
            query = " ".join(words[place] for place in order)
            file.write(json.dumps({"query": query, "positive": document}) + "\n")
    return path


def wish(bert, pairs, **given):
    words = {"corpus": None, "pairs": str(pairs), "queries": None, "llm": None, "model": bert}
    return FitWish.model_validate({**words, "guards": (), "seconds": 600.0, **given})


@pytest.fixture(scope="module", autouse=True)
def fast_learner():
    """A toy learns nothing at the rates of grown models."""
    with pytest.MonkeyPatch.context() as patch:
        trainer = {"auto": True, "learning_rate": 3e-3}
        patch.setattr("embedtrain.workflows.fit.compose.TRAINER", trainer)
        yield


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("fit") / "pairs.jsonl", answers=True)


@pytest.fixture(scope="module")
def finished(bert, pairs, tmp_path_factory):
    """A fit in which some of the pairs choose, as they do where there are more."""
    plans = []
    output = tmp_path_factory.mktemp("fitted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedtrain.workflows.fit.plan.TELLING", 0)
        done = fit(wish(bert, pairs), output, plans.append)
    assert len(plans) == 1
    assert plans[0].total < 600
    return done, output


def weights(folder):
    return load_encoder(str(folder)).state_dict()


def test_a_model_that_is_better_is_the_result(finished, bert):
    done, output = finished
    assert done.refusal is None
    verdict = json.loads((output / "gate/gate.json").read_text())
    assert verdict["gain"]["low"] > 0
    assert any(not value.equal(weights(bert)[name]) for name, value in weights(done.model).items())
    assert not (output / "refused.json").exists()


def test_the_page_needs_no_network_and_opens_with_the_decision(finished):
    done, output = finished
    page = read(done.report)
    assert page.addresses == []
    assert "http:" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", done.report.read_text())
    text = " ".join(page.texts)
    assert text.index("is better than its start and is shipped") < text.index("Before and after")
    for heading in ("Rows to look at", "Training", "Queries", "Time and cost", "How to repeat it"):
        assert heading in text
    assert "nDCG@10 on dev queries" in text
    assert "(synthetic)" not in text
    facts = json.loads((output / "report.json").read_text())
    assert facts["verdict"]["ships"] is True
    assert set(facts["seconds"]) >= {"data", "plain", "gate"}


def test_the_same_words_again_do_nothing_again(finished, bert, pairs, monkeypatch):
    for name in ("train", "resume", "gate", "mine", "hold_out_rows"):
        if name != "mine":  # which sees for itself that it is done
            monkeypatch.setattr(
                f"embedtrain.workflows.stages.{name}", lambda *_: pytest.fail("done again")
            )
    done, output = finished
    assert fit(wish(bert, pairs), output) == done
    with pytest.raises(UserError, match="begun with --budget 10 minutes"):
        fit(wish(bert, pairs, seconds=700.0), output)


def test_a_killed_fit_goes_on_and_ends_the_same(finished, bert, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.workflows.fit.plan.TELLING", 0)
    done, output = finished
    words = ["fit", "--pairs", pairs, "--model", bert, "--budget", "10m", "--output"]
    killed = embedtrain(
        [*words, tmp_path / "run"],
        before=lambda: signal_on_call(RetrievalModule, "training_step", 7),
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run/model").exists()
    for name in ("pipeline.yaml", "plan.json"):  # the plan holds times, which no run repeats
        (tmp_path / "run" / name).write_bytes((output / name).read_bytes())
    again = fit(wish(bert, pairs), tmp_path / "run")
    assert again.refusal is None
    file = "model.safetensors"
    assert (again.model / file).read_bytes() == (done.model / file).read_bytes()


def test_what_learned_nonsense_is_refused_and_the_start_is_the_result(bert, tmp_path):
    before = weights(bert)
    pairs = write_pairs(tmp_path / "nonsense.jsonl", answers=False)
    words = ["fit", "--pairs", pairs, "--model", bert, "--budget", "10m", "--output"]
    done = embedtrain([*words, tmp_path / "run"])
    assert done.returncode == 3, done.stderr
    assert "The start is kept" in done.stderr
    found = json.loads((tmp_path / "run/refused.json").read_text())
    assert found["ships"] is False
    for place in (bert, tmp_path / "run/model"):
        assert all(value.equal(before[name]) for name, value in weights(place).items())
    assert "The start is the result" in " ".join(read(tmp_path / "run/report.html").texts)


def test_with_a_corpus_the_pairs_are_searched_among_its_documents(bert, pairs, tmp_path):
    generator = torch.Generator().manual_seed(2)
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(100):
        (docs / f"{number}.txt").write_text(sentence(generator, 8))
    answers = [json.loads(line)["positive"] for line in pairs.read_text().splitlines()]
    (docs / "answers.jsonl").write_text(
        "".join(json.dumps({"id": f"a{n}", "text": text}) + "\n" for n, text in enumerate(answers))
    )
    done = fit(wish(bert, pairs, corpus=str(docs)), tmp_path / "run")
    assert len(done.corpus.read_text().splitlines()) == 340
    page = " ".join(read(done.report).texts)
    assert "No query chose among its steps, the last is taken" in page
    assert "340 documents, 100 of them from the corpus alone" in page
    assert f"embedtrain fit {docs} --pairs {pairs}" in page
