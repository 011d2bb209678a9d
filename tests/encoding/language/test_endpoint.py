"""An OpenAI-compatible address as a scorer: the right scores, patience, and one line where it does not do."""

import json
import math
from unittest.mock import Mock

import pytest
from completions_stub import CompletionsStub, echoed, listed, odds

from embedtrain.data.examples import SourceConfig
from embedtrain.encoding.language import endpoint
from embedtrain.encoding.language.settings import EndpointSettings, LanguageSettings
from embedtrain.encoding.pair_scorers import PairScorer, open_pair_scorer
from embedtrain.errors import UserError
from embedtrain.workflows import score as workflow
from embedtrain.workflows.score import score

PAIRS = [("cat?", "a" * size) for size in (1, 5, 3)]
SECRET = "sesame-open-1234"


def expected(number):
    return math.log(math.exp(-1) + math.exp(-2 + number / 10)) + 1.5


@pytest.mark.parametrize("route", ["", "/chat/completions", "/completions"])
def test_forms_of_an_answer_add_up(route):
    with CompletionsStub(odds) as stub:
        scorer = open_pair_scorer(stub.url + route, kind="yes_no")
        assert isinstance(scorer, PairScorer)
        assert scorer.logits(PAIRS) == pytest.approx([expected(n) for n in (1, 5, 3)])
        assert len(scorer.logits([])) == 0
    assert {path for path, _ in stub.asked} == {f"/v1{route or '/chat/completions'}"}
    assert all(body["model"] == "toy" for _, body in stub.asked)
    assert (scorer.work.pairs, scorer.work.tokens) == (3, 30)


def test_the_model_may_be_named_in_the_address():
    with CompletionsStub(odds) as stub:
        scorer = open_pair_scorer(f"{stub.url}#other/model", kind="yes_no")
        scorer.logits(PAIRS)
    assert {body["model"] for _, body in stub.asked} == {"other/model"}


def test_the_likelihood_is_that_of_the_letters_of_the_query():
    with CompletionsStub(lambda path, body: echoed(body["prompt"], lambda n: -float(n))) as stub:
        for normalize, reduce in (("tokens", lambda x: sum(x) / len(x)), ("sum", sum)):
            settings = LanguageSettings(normalize=normalize, template="{document}>{query}")
            found = open_pair_scorer(stub.url, kind="likelihood", language=settings).logits(PAIRS)
            places = [range(size + 1, size + 5) for size in (1, 5, 3)]
            assert found == pytest.approx([reduce([-float(n) for n in own]) for own in places])
    path, body = stub.asked[0]
    assert (path, body["echo"], body["max_tokens"]) == ("/v1/completions", True, 0)


def test_what_passes_is_tried_again():
    with CompletionsStub(odds) as stub:
        stub.faults += [429, 500, b"not json", b"[1]", 429]
        settings = LanguageSettings(endpoint=EndpointSettings(concurrency=1, price=2.0))
        scorer = open_pair_scorer(stub.url, kind="yes_no", language=settings)
        assert scorer.logits(PAIRS) == pytest.approx([expected(n) for n in (1, 5, 3)])
    spent = scorer.tally()["spent"]
    assert spent == {
        "requests": 3, "retries": 5, "prompt_tokens": 30, "completion_tokens": 3, "cost": 6.6e-5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("faults", "asked", "mistake"),
    [
        ([503] * 9, 6, "HTTP 503"),
        ([401], 1, "HTTP 401: no: wait"),
        ([b"x"] * 9, 6, "no JSON object"),
    ],
)
def test_what_does_not_pass_ends_in_one_line(faults, asked, mistake, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, SECRET)
    with CompletionsStub(odds) as stub:
        stub.faults += faults
        scorer = open_pair_scorer(stub.url, kind="yes_no")
        with pytest.raises(
            UserError, match=f"does not answer; got '{mistake}.*goes on where it was"
        ) as caught:
            scorer.logits(PAIRS[:1])
    assert len(stub.asked) == asked
    assert set(stub.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"choices": [{"logprobs": None}]},
        {"choices": []},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": []}]}}]},
        {
            "choices": [
                {
                    "logprobs": {
                        "content": [{"top_logprobs": [{"token": "Yes", "logprob": math.nan}]}]
                    }
                }
            ]
        },
        {"choices": [{"logprobs": {"top_logprobs": [{"Yes": -1.0}]}}]},
    ],
)
def test_an_answer_without_log_probabilities_is_refused(content):
    with CompletionsStub(lambda path, body: content) as stub:
        for kind in ("yes_no", "likelihood"):
            scorer = open_pair_scorer(stub.url, kind=kind)
            with pytest.raises(UserError, match="answers without the log-probabilities"):
                scorer.logits(PAIRS)


def test_a_model_that_thinks_first_is_refused():
    with CompletionsStub(lambda path, body: listed(path, {"<think>": -0.01, "Yes": -7.0})) as stub:
        scorer = open_pair_scorer(stub.url, kind="yes_no")
        with pytest.raises(
            UserError, match=r"is not about to answer 'Yes' or 'No'.*Switch thinking off"
        ):
            scorer.logits(PAIRS)


def test_an_answer_that_is_not_listed_is_a_little_rarer_than_those_listed():
    replies = iter([{"Yes": -0.1, "So": -9.0}, *[{"Yes": -0.1, "No": -3.0}] * 10])
    with CompletionsStub(lambda path, body: listed(path, next(replies))) as stub:
        settings = LanguageSettings(endpoint=EndpointSettings(concurrency=1))
        scorer = open_pair_scorer(stub.url, kind="yes_no", language=settings)
        found = scorer.logits([("q", str(n)) for n in range(11)])
    assert found == pytest.approx([9.9] + [2.9] * 10)
    assert scorer.tally()["answers_not_listed"] == 1


def test_an_answer_that_is_neither_is_counted_and_many_are_refused():
    good, bad = {"Yes": -0.1, "No": -3.0}, {"<pad>": -0.01, "So": -9.0}
    replies = iter([bad, *[good] * 20, bad, *[good] * 18, bad])
    with CompletionsStub(lambda path, body: listed(path, next(replies))) as stub:
        settings = LanguageSettings(endpoint=EndpointSettings(concurrency=1))
        scorer = open_pair_scorer(stub.url, kind="yes_no", language=settings)
        # Alone it is no reason to end: its share of all pairs is not known yet.
        assert scorer.logits([("q", "first")]) == pytest.approx([0.0])
        found = scorer.logits([("q", str(n)) for n in range(39)])
        assert found[20] == 0
        assert found[:20] == pytest.approx([2.9] * 20)
        assert scorer.tally()["answers_malformed"] == 2
        with pytest.raises(UserError, match="for 1 of 1 pairs, both for 1"):
            scorer.logits([("q", "last")])


def test_a_published_template_brings_its_answers():
    reply = {"能": -0.2, "不能": -2.0, "Yes": -5.0, "No": -6.0}
    with CompletionsStub(lambda path, body: listed(path, reply)) as stub:
        scorer = open_pair_scorer(
            f"{stub.url}/completions", kind="yes_no", language=LanguageSettings(template="d2llm")
        )
        assert scorer.logits(PAIRS) == pytest.approx([1.8] * 3)
    assert (scorer.describe()["yes"], scorer.describe()["no"]) == ("能", "不能")


def test_the_key_changes_with_the_address():
    with CompletionsStub(odds) as one, CompletionsStub(odds) as other:
        first, second, again = (
            open_pair_scorer(stub.url, kind="yes_no").key() for stub in (one, other, one)
        )
    assert first == again != second


@pytest.mark.parametrize(
    ("url", "kind", "settings", "mistake"),
    [
        ("http://me:word@127.0.0.1/v1", "yes_no", {}, "holds a password"),
        ("http://localhost:abc/v1", "yes_no", {}, "is no address; got .Invalid port"),
        ("http:///v1", "yes_no", {}, "is no address; got 'no host'"),
        ("http://127.0.0.1/v1", None, {}, "--as must be yes_no or likelihood for an address"),
        ("http://127.0.0.1/v1", "encoder", {}, "--as must be yes_no or likelihood for an address"),
        ("STUB", "yes_no", {"yes": "Yes", "no": "yes "}, "are alike, or empty"),
        ("STUB", "yes_no", {"yes": "Yes"}, "--yes is given without --no"),
        ("STUB", "yes_no", {"no": "No"}, "--no is given without --yes"),
        ("STUB", "yes_no", {"yes": "Yes", "no": ""}, "--no is empty.*an address"),
        ("STUB", "yes_no", {"template": "bge_gemma"}, "--no is empty.*an address"),
        ("STUB", "yes_no", {"centre": True}, "--centre is not offered for an address"),
        ("STUB", "yes_no", {"template": "only {query}"}, r"must hold \{query\} and \{document\}"),
        ("STUB", "likelihood", {"template": "{query} {document}"}, r"must end with \{query\}"),
        ("STUB", "likelihood", {"normalize": "pmi"}, "--normalize is not offered for an address"),
    ],
)
def test_what_an_address_cannot_do_is_refused(url, kind, settings, mistake):
    with CompletionsStub(odds) as stub, pytest.raises(UserError, match=mistake) as caught:
        open_pair_scorer(
            url.replace("STUB", stub.url), kind=kind, language=LanguageSettings(**settings)
        )
    assert "me:word" not in str(caught.value)


def test_requests_keep_to_their_rate(monkeypatch):
    waits = []
    monkeypatch.setattr(endpoint.time, "sleep", waits.append)
    monkeypatch.setattr(endpoint.time, "monotonic", lambda: 100.0)
    settings = EndpointSettings(requests_per_minute=30, served_name="toy", concurrency=1)
    with CompletionsStub(odds) as stub:
        endpoint.Endpoint(stub.url, settings, route="/completions").ask([{"prompt": "x"}] * 4)
    assert waits == [0, 2, 4, 6]


def test_the_bill_is_there_before_the_scores_have_their_name(pairs, tmp_path, monkeypatch):
    rows, out = SourceConfig(path=str(pairs), limit=3), tmp_path / "scored.jsonl"
    settings = LanguageSettings(endpoint=EndpointSettings(price=1000.0))
    with CompletionsStub(odds) as stub:
        with monkeypatch.context() as patch:
            patch.setattr(workflow, "finish", Mock(side_effect=OSError("gone")))
            with pytest.raises(UserError, match="gone"):
                score(stub.url, rows, out, kind="yes_no", language=settings)
        first = json.loads((tmp_path / "scored.teacher.json").read_text())
        score(stub.url, rows, out, kind="yes_no", language=settings)
    told = json.loads((tmp_path / "scored.teacher.json").read_text())
    assert told["spent"]["cost"] == pytest.approx(2 * first["spent"]["cost"])
    assert told["spent"]["requests"] == len(stub.asked) == 12


def test_a_scoring_that_the_server_ends_goes_on_and_tells_what_it_spent(
    pairs, tmp_path, monkeypatch
):
    monkeypatch.setattr(workflow, "EXAMPLES_PER_LANGUAGE_BLOCK", 4)
    monkeypatch.setenv(endpoint.KEY, SECRET)
    rows, out = SourceConfig(path=str(pairs), limit=10), tmp_path / "scored.jsonl"
    with CompletionsStub(odds) as stub:
        score(stub.url, rows, tmp_path / "whole.jsonl", kind="yes_no")
        whole = len(stub.asked)
        # The ninth row is refused: two blocks are written.
        stub.faults += [None] * 17 + [403]
        with pytest.raises(UserError, match="HTTP 403"):
            score(
                stub.url,
                rows,
                out,
                kind="yes_no",
                language=LanguageSettings(endpoint=EndpointSettings(concurrency=1)),
            )
        stub.faults.clear()
        before = len(stub.asked)
        score(stub.url, rows, out, kind="yes_no")
        assert len(stub.asked) - before == whole - 16
        answered = len(stub.asked) - whole - 1
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    told = (tmp_path / "scored.teacher.json").read_text()
    assert json.loads(told)["spent"]["requests"] == answered > whole  # with those of the lost block
    assert (json.loads(told)["pairs"], json.loads(told)["answers_not_listed"]) == (20, 0)
    for file in tmp_path.iterdir():
        assert SECRET not in file.read_text()
