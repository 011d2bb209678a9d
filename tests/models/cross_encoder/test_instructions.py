"""Cross-encoders under an instruction (TART-full): it stands before the query, in its segment."""

import pytest
import torch
from pair_toys import save_classifier

from embedtrain.contract.texts import Instruction
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.build import (
    build_cross_encoder,
    load_cross_encoder,
    save_cross_encoder,
)
from embedtrain.models.cross_encoder.config import CrossEncoderConfig

DOCUMENT = "the small dog sleeps near a tree"
INSTRUCTIONS = {
    "house": Instruction(text="near the house", template="tart"),
    "small": Instruction(text="small ", template="plain"),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return str(save_classifier(tmp_path_factory.mktemp("start"), "bert"))


def model_of(start, **settings):
    config = CrossEncoderConfig(
        kind="cross_encoder", backbone=start, instructions=INSTRUCTIONS, **settings
    )
    return build_cross_encoder(config, torch.device("cpu")).eval()


def test_the_instruction_stands_before_the_query_in_its_segment(start):
    model = model_of(start)
    model.contract = model.contract.under("house")
    pair = model.pairs_of([("red cat", DOCUMENT)])
    whole = "[CLS] near the house [SEP] red cat [SEP] " + DOCUMENT + " [SEP]"
    expected = model.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert pair.ids.tolist() == expected
    assert int(pair.second[0]) == expected.index(model.tokenizer.sep_token_id, 6) + 1


@torch.no_grad()
def test_other_readers_score_alike_with_the_instruction_written_out(start, tmp_path):
    model = model_of(start)
    save_cross_encoder(model, tmp_path / "saved")
    saved = load_cross_encoder(str(tmp_path / "saved")).eval()
    assert saved.contract.instructions == {"house": "near the house [SEP] ", "small": "small "}
    plain = CrossEncoder(str(tmp_path / "saved"))
    told = CrossEncoder(str(tmp_path / "saved"), instruction="house")
    assert told.logits([("red cat", DOCUMENT)]) == pytest.approx(
        plain.logits([("near the house [SEP] red cat", DOCUMENT)]), abs=1e-6
    )
    assert abs(told.logits([("red cat", DOCUMENT)]) - plain.logits([("red cat", DOCUMENT)])) > 1e-3
    assert told.key() != plain.key()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    inputs = tokenizer("near the house [SEP] red cat", DOCUMENT, return_tensors="pt")
    expected = theirs(**inputs).logits[0, 0]
    saved.contract = saved.contract.under("house")
    found = saved.score(saved.pairs_of([("red cat", DOCUMENT)]), Execution())[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


def test_an_instruction_that_leaves_no_room_or_is_unknown_is_refused(start):
    with pytest.raises(UserError, match=r"instructions\.house takes 4 tokens of a query"):
        model_of(start, query_length=4)
    with pytest.raises(UserError, match="is none that the model knows"):
        model_of(start).contract.under("tree")


def test_documents_get_no_instruction(start):
    both = {"house": Instruction(text="near", both_sides=True)}
    with pytest.raises(ValueError, match="once, before the query"):
        CrossEncoderConfig(kind="cross_encoder", backbone=start, instructions=both)


def test_a_folder_without_instructions_is_written_as_before(start, tmp_path):
    save_cross_encoder(load_cross_encoder(start), tmp_path / "plain")
    assert "instructions" not in (tmp_path / "plain" / "embedtrain.json").read_text()
