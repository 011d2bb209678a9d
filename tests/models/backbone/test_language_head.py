import logging

import pytest
import torch
from pretrain_parts import architecture
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from embedtrain.errors import UserError
from embedtrain.models.backbone.language_head import (
    MaskedLanguageModel,
    build_masked_language_model,
    load_masked_language_model,
)

FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert", "distilbert")


def language_model(bert: str, family: str) -> MaskedLanguageModel:
    torch.manual_seed(0)
    if family == "xlm-roberta":
        config = XLMRobertaConfig(
            vocab_size=103,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=66,
            pad_token_id=1,
        )
        return MaskedLanguageModel(
            XLMRobertaForMaskedLM(config), AutoTokenizer.from_pretrained(bert), "xlm-roberta"
        )
    if family != "distilbert":
        return build_masked_language_model(bert, architecture(family))
    config = DistilBertConfig(
        vocab_size=103, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64
    )
    tokenizer = AutoTokenizer.from_pretrained(bert)
    return MaskedLanguageModel(DistilBertForMaskedLM(config), tokenizer, "distilbert")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_give_the_logits_of_the_whole(bert, family):
    model = language_model(bert, family).eval()
    torch.nn.init.normal_(model.bias)
    ids = torch.randint(5, 103, (1, 12))
    states = model.model.base_model(input_ids=ids).last_hidden_state[0]
    logits = model.transform(states) @ model.weight.T + model.bias
    assert torch.allclose(logits, model.model(input_ids=ids).logits[0], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_the_encoder(bert, family):
    model = language_model(bert, family).eval()
    ids, places = torch.randint(5, 103, (7,)), torch.arange(7)
    base = model.model.base_model
    assert torch.equal(model.embed(ids, places), base.embeddings(ids[None])[0])
    words = model.model.get_input_embeddings()(ids)
    assert torch.allclose(model.embed_vectors(words, places), model.embed(ids, places), atol=1e-6)
    assert model.has_positions == (family != "modernbert")
    assert len(model.layers) == 2


def test_a_family_whose_head_is_not_known_is_refused(bert):
    config = ElectraConfig(
        vocab_size=103, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(UserError, match="head of an unknown kind; got 'electra'"):
        MaskedLanguageModel(ElectraForMaskedLM(config), AutoTokenizer.from_pretrained(bert), "x")


def test_a_folder_without_a_head_gets_a_new_one_and_the_log_says_so(bert, caplog):
    with caplog.at_level(logging.WARNING):
        model = load_masked_language_model(bert)
    assert "has no masked-language head" in caplog.text
    assert model.weight is model.model.get_input_embeddings().weight


def test_a_folder_with_a_head_keeps_it(bert, tmp_path, caplog):
    saved = language_model(bert, "roberta")
    saved.model.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    loaded = load_masked_language_model(str(tmp_path))
    assert caplog.text == ""
    for name, value in saved.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_a_tokenizer_larger_than_the_head_is_refused(bert, tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(bert)
    model.resize_token_embeddings(50)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="embeddings for 50 entries, fewer than its tokenizer"):
        load_masked_language_model(str(tmp_path))


def test_sizes_that_do_not_fit_and_missing_tokenizers_are_refused(bert, tmp_path):
    with pytest.raises(UserError, match="cannot be shared among 5 heads; got 32"):
        build_masked_language_model(bert, architecture(num_heads=5))
    with pytest.raises(UserError, match=r"names no folder with a tokenizer\.json"):
        build_masked_language_model(str(tmp_path), architecture())
