"""A model writes in batches what it would write alone, and what transformers lets it write."""

import pytest
import torch
from language_toys import save_language_model

from embedtrain.models.language.model import LanguageModel
from embedtrain.models.language.shared_prefix import TokenCount
from embedtrain.models.language.writing import Draft, begin, write

ENDS = frozenset({1})
PROMPTS = [[2, 9, 30, 40, 50], [2, 9, 30, 77], [2, 9, 30, 12, 60, 61, 62, 63, 90], [2, 9, 30, 5]]


@pytest.fixture(scope="module")
def model(language_model):
    return LanguageModel(language_model)


def drafts(**changes):
    return [Draft(list(ids), 12, **{"seed": place, **changes}) for place, ids in enumerate(PROMPTS)]


def written(model, texts, *, share=True, count=None):
    trunk, size = begin(model, texts, count) if share else (None, 0)
    write(model, texts, ENDS, trunk=trunk, trunk_size=size, count=count)
    return [(one.written, one.finish) for one in texts]


@pytest.mark.parametrize("share", [True, False])
def test_a_batch_writes_what_transformers_writes_of_each_alone(model, share):
    found = drafts()
    for (ids, finish), prompt in zip(written(model, found, share=share), PROMPTS, strict=True):
        alone = model.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12, do_sample=False, eos_token_id=1, pad_token_id=0,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert ids == [token for token in alone if token != 1]
        assert (finish == "stop") == (1 in alone)


def test_log_probabilities_are_those_of_the_model(model):
    (one,) = texts = [Draft(list(PROMPTS[0]), 6)]
    write(model, texts, frozenset())
    whole = torch.tensor([[*PROMPTS[0], *one.written]])
    with torch.no_grad():
        logs = model.model(whole).logits[0].log_softmax(-1)
    start = len(PROMPTS[0])
    expected = [float(logs[start + n - 1, token]) for n, token in enumerate(one.written)]
    assert one.logs == pytest.approx(expected, abs=1e-4)
    assert one.log_probability == pytest.approx(sum(expected) / 6, abs=1e-4)


def test_draws_follow_from_the_seed_and_differ_between_seeds(model):
    settings = {"temperature": 1.0, "top_p": 0.9}
    first = written(model, drafts(**settings))
    assert first == written(model, drafts(**settings))
    assert first != written(model, drafts(**settings, seed=99))
    # Of a tiny share only the likeliest is left.
    assert written(model, drafts(temperature=1.0, top_p=1e-9)) == written(model, drafts())


def test_draws_have_the_probabilities_of_the_model():
    logs = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    counts = [0] * 4
    draft = Draft([2], 10**9, temperature=1.0, top_p=0.9, seed=3)
    for _ in range(2000):
        counts[draft.go_on(logs, frozenset())] += 1
    assert counts[3] == 0
    assert counts[0] / 2000 == pytest.approx(0.5 / 0.95, abs=0.05)


def test_a_text_ends_where_it_is_told_and_others_go_on(model):
    texts = drafts()
    texts[1].is_done = lambda ids: len(ids) == 2
    whole = written(model, drafts())
    found = written(model, texts)
    assert found[1] == (whole[1][0][:2], "stop")
    assert [found[place] for place in (0, 2, 3)] == [whole[place] for place in (0, 2, 3)]


def test_what_texts_begin_with_is_computed_once(model):
    shared, alone = TokenCount(), TokenCount()
    assert written(model, drafts(), count=shared) == written(
        model, drafts(), share=False, count=alone
    )
    assert alone.computed - shared.computed == 3 * (len(PROMPTS) - 1)
    assert shared.given == sum(map(len, PROMPTS))


def test_one_token_alone_is_gone_on_with(model):
    texts = [Draft([5], 3), Draft([5], 3)]
    assert begin(model, texts) == (None, 0)
    write(model, texts, ENDS)
    assert texts[0].written == texts[1].written


def test_a_model_that_counts_places_itself_writes_the_same(tmp_path):
    """Behind padding a place is counted from the first token, not from the padding."""
    model = LanguageModel(save_language_model(tmp_path, max_position_embeddings=64))
    assert written(model, drafts(), share=False) == [
        written(model, [one], share=False)[0] for one in drafts()
    ]
