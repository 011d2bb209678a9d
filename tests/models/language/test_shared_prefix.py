"""Shared beginnings are computed once, and nobody can tell from the states."""

import pytest
import torch
from language_toys import save_language_model, whole

from embedtrain.contract.texts import join_texts
from embedtrain.models.language.model import LanguageModel
from embedtrain.models.language.shared_prefix import Reading, TokenCount, read_states

CLOSE = 2e-6
"""Families compute their norms in float32, whatever the weights are."""


@pytest.fixture(scope="module")
def model(language_model):
    found = LanguageModel(language_model)
    found.model.double()
    return found


def reading():
    """Two families of three and two texts, one text alone; all begin alike."""
    draw = torch.Generator().manual_seed(1)

    def ids(size):
        return torch.randint(2, 200, (size,), generator=draw)

    root, first, second = ids(5), ids(7), ids(4)
    bodies = [(first, 3), (second, 9), (first, 1), (ids(6), 2), (first, 12), (second, 5)]
    texts = [torch.cat([root, head, ids(size)]) for head, size in bodies]
    heads = torch.tensor([5 + len(head) for head, _ in bodies])
    wanted = torch.tensor([1, 3, 2, 1, 4, 6])
    return Reading(join_texts([one.numpy() for one in texts]), heads, wanted)


def states_by_row(model, texts, **options):
    found = {}
    for rows, states in read_states(model, texts, **options):
        for row, own in zip(rows, states.split(texts.wanted[rows].tolist()), strict=True):
            assert row not in found
            found[row] = own
    return [found[row] for row in range(len(texts.texts))]


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
@pytest.mark.parametrize("share", [True, False])
def test_states_are_those_of_each_text_alone(model, batch_tokens, share):
    texts = reading()
    found = states_by_row(model, texts, batch_tokens=batch_tokens, share=share)
    with torch.no_grad():
        for ids, wanted, states in zip(
            texts.texts.each(), texts.wanted.tolist(), found, strict=True
        ):
            alone = model.model.base_model(ids[None], use_cache=False).last_hidden_state[0]
            assert torch.allclose(states, alone[-wanted:], rtol=0, atol=CLOSE)


def test_padding_on_the_left_would_give_the_same_states(model):
    """Behind a mask and with places that count from the first token: padding is where the work is, not the score."""
    texts = reading()
    longest = int(texts.texts.lengths.max())
    rows = texts.texts.each()
    ids = torch.stack([torch.cat([row.new_zeros(longest - len(row)), row]) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    with torch.no_grad():
        left = model.model.base_model(
            ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_min(0),
            use_cache=False,
        ).last_hidden_state
    for states, padded, wanted in zip(
        states_by_row(model, texts), left, texts.wanted.tolist(), strict=True
    ):
        assert torch.allclose(states, padded[-wanted:], rtol=0, atol=CLOSE)


def test_what_is_shared_is_counted_once(model):
    texts, count = reading(), TokenCount()
    states_by_row(model, texts, count=count)
    given = int(texts.texts.lengths.sum())
    # The root (5) once instead of six times; 7 of three and 4 of two once. One token of each head is left to its text.
    spared = 5 * 5 + 2 * (7 - 1) + 1 * (4 - 1)
    assert (count.given, count.computed - count.padding) == (given, given - spared)


def test_windows_of_attention_and_soft_caps_are_kept(tmp_path):
    from language_toys import spelling_tokenizer
    from transformers import Gemma2Config, Gemma2ForCausalLM

    tokenizer = spelling_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=64, head_dim=8, sliding_window=6,
        final_logit_softcapping=2.0, initializer_range=0.2, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = LanguageModel(str(tmp_path))
    model.model.double()
    texts = reading()
    for ids, states in zip(texts.texts.each(), states_by_row(model, texts), strict=True):
        logits = whole(model, ids.tolist())[-1]
        assert model.log_odds(states[-1:], 7, 9).item() == pytest.approx(
            float(logits[7] - logits[9]), abs=CLOSE
        )
        assert model.log_probabilities(states[-1:], torch.tensor([7])).item() == pytest.approx(
            logits.log_softmax(-1)[7].item(), abs=CLOSE
        )


def test_nothing_to_read_is_nothing(model):
    empty = torch.zeros(0, dtype=torch.int64)
    assert not list(read_states(model, Reading(join_texts([]), empty, empty)))


def test_a_head_that_does_more_is_refused(tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    from embedtrain.errors import UserError

    folder = save_language_model(tmp_path)
    original = LlamaForCausalLM.forward

    def scaled(self, *args, **options):
        found = original(self, *args, **options)
        found.logits = found.logits * 0.5
        return found

    monkeypatch.setattr(LlamaForCausalLM, "forward", scaled)
    with pytest.raises(UserError, match="has a head that is more than a matrix; got 'llama'"):
        LanguageModel(folder)
