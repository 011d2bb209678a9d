"""Each fault of a reader is named, by what it makes of texts; two that look alike are not guessed at."""

from contextlib import contextmanager

import pytest
from reader_toys import FakeReader

from embedtrain.verification import diagnosis
from embedtrain.verification.ours import Change
from embedtrain.verification.readers import Opening
from embedtrain.verification.values import Bound

NO_PROMPT = {"query": "", "document": "", "plain": ""}
WINDOWS = {"query": 12, "document": 24, "plain": 24}


def compare(model, folder, **faults):
    @contextmanager
    def start():
        yield FakeReader(folder, **faults)

    return model.row(Opening("fake", start))


def causes(row):
    return [one.cause for one in row.findings]


def test_a_reader_that_encodes_right_is_ok(mean_model, mean_folder, last_model, last_folder):
    for row in (
        compare(mean_model, mean_folder),
        compare(last_model, last_folder, pooling="last_token"),
        compare(mean_model, mean_folder, tells_ids=False),
    ):
        assert row.verdict == "ok", row.findings
        assert row.figures["largest"] < 1e-6
        assert row.figures["overlap"] == 1.0


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ({"pooling": "cls"}, "pooling: first token"),
        ({"pooling": "max"}, "pooling: maximum"),
        ({"pooling": "last_token"}, "pooling: last token"),
        ({"prompts": NO_PROMPT}, "prompt missing"),
        ({"prompts": NO_PROMPT | {"query": "query: query: "}}, "prompt twice"),
        ({"prompts": dict.fromkeys(WINDOWS, "query: ")}, "a query's prompt though none was asked for"),
        ({"special": False}, "special tokens missing"),
        ({"last": None}, "last special token (EOS) missing"),
        ({"causal": True}, "attention: causal, where tokens should see all others"),
        ({"normalize": False}, "not normalised"),
        ({"noise": 0.3}, "random: one text gives several vectors"),
        ({"offset": 100.0}, "all vectors are alike"),
        ({"dim": 16}, "dimension: cut to the first 16 of 32"),
        ({"half": True, "bound": Bound(1e-7)}, "precision: all texts are a little off"),
        ({"reverse": True}, "results are not in the order of the texts"),
        ({"padding": "pooled"}, "padding: is pooled"),
        ({"padding": "attended"}, "padding: is attended to"),
        ({"padding": "both"}, "padding: is attended to and pooled"),
    ],
)  # fmt: skip
def test_a_fault_is_named(mean_model, mean_folder, faults, cause):
    row = compare(mean_model, mean_folder, **faults)
    assert row.verdict == "wrong"
    found = [one.cause for one in row.findings if not one.excused]
    assert len(found) == 1, found
    assert found[0].startswith(cause)


def test_vectors_that_are_all_no_numbers_are_not_taken_for_random_ones(
    mean_model, mean_folder, monkeypatch
):
    encode = FakeReader.encode

    def nothing(self, texts, mode):
        return [one * float("nan") for one in encode(self, texts, mode)]

    monkeypatch.setattr(FakeReader, "encode", nothing)
    row = compare(mean_model, mean_folder, bound=Bound(5e-3, 1e-3))
    assert row.verdict == "wrong"
    assert causes(row)[0] == "NaN or infinity in vectors"


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ({"windows": dict.fromkeys(WINDOWS, 64)}, "window: cuts at 64 tokens"),
        ({"raw_cut": True}, "window: cuts without the last special token"),
        ({"split_special": True}, "tokenizer: special tokens in texts are read as plain words"),
        ({"ascii_only": True}, "tokenizer: other token ids"),
        ({"ascii_only": True, "tells_ids": False}, "tokenizer: odd texts only"),
        ({"empty": "nan"}, "NaN or infinity in vectors"),
        ({"empty": "zeros"}, "vectors of zeros"),
        ({"empty": "refused"}, "refuses texts"),
    ],
)
def test_a_fault_of_odd_texts_is_an_exception(mean_model, mean_folder, faults, cause):
    row = compare(mean_model, mean_folder, **faults)
    assert row.verdict == "ok except", row.findings
    assert any(found.startswith(cause) for found in causes(row)), row.findings
    assert row.figures["largest"] < 1e-6


def test_a_window_that_cuts_the_users_own_texts_is_wrong(mean_model, mean_folder):
    row = compare(mean_model, mean_folder, windows=WINDOWS | {"document": 8})
    assert row.verdict == "wrong"
    assert causes(row) == ["window: cuts at 8 tokens"]


def test_faults_of_models_that_take_the_last_token_are_named(last_model, last_folder):
    row = compare(last_model, last_folder, pooling="last_token", last=None)
    assert causes(row) == ["last special token (EOS) missing"]
    pad = last_model.ours.tokenizer.pad_token_id + 4  # [MASK] stands for the end of a chat
    assert pad == last_model.ours.tokenizer.mask_token_id
    row = compare(last_model, last_folder, pooling="last_token", padding="last column")
    assert [one.split(":")[0] for one in causes(row)] == ["padding"]
    assert "last column" in causes(row)[0]


def test_a_missing_layer_is_named(projected_model, projected_folder):
    row = compare(projected_model, projected_folder, project=False)
    assert len(causes(row)) == 1
    assert causes(row)[0].startswith("dimension: the layer behind the pooling (Dense) is missing")
    assert compare(projected_model, projected_folder).verdict == "ok"


def test_vectors_that_scales_of_a_batch_move_are_told(mean_model, mean_folder):
    row = compare(mean_model, mean_folder, scales=True, bound=Bound(1e-7))
    assert any("dynamic quantisation" in found for found in causes(row)), row.findings
    known = Bound(5e-2, mean=1e-2, overlap=0.8, depends_on_batch=True)
    row = compare(mean_model, mean_folder, scales=True, bound=known)
    assert row.verdict == "ok", (row.findings, row.figures)


def test_two_faults_are_both_named_or_unknown(mean_model, mean_folder):
    row = compare(mean_model, mean_folder, prompts=NO_PROMPT, normalize=False)
    assert [one.split(" (")[0] for one in causes(row)] == ["prompt missing", "not normalised"]
    row = compare(mean_model, mean_folder, pooling="cls", last=None)
    assert causes(row) == ["pooling: first token; last special token (EOS) missing"]
    row = compare(mean_model, mean_folder, last=None, rotated=True)
    assert causes(row) == ["unknown"]


def test_what_cannot_be_told_apart_is_unknown(mean_model, mean_folder, monkeypatch):
    same = [Change("one cause", pooling="cls"), Change("another", pooling="cls")]
    monkeypatch.setattr(diagnosis, "changes_of", lambda _: same)
    row = compare(mean_model, mean_folder, pooling="cls")
    assert causes(row) == ["unknown: one cause or another, which give the same vectors here"]
    assert row.verdict == "wrong"
