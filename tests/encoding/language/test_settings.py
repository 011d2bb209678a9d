"""What a scorer is told must change something."""

import pytest

from embedtrain.encoding.language.settings import USED, LanguageSettings
from embedtrain.encoding.pair_scorers import LANGUAGE_SCORERS
from embedtrain.errors import UserError

CHANGED = {
    "template": "qwen3", "instruction": "legal", "yes": "Ja", "no": "Nein", "centre": True, "gram": True,
    "normalize": "pmi", "labels": ("bad", "good"), "answers": "a.jsonl", "attribution": "loo", "window": 5, "step": 3,
    "length": 100, "query_length": 10, "endpoint": {"price": 2.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["encoder", "cross_encoder", *LANGUAGE_SCORERS])
@pytest.mark.parametrize("name", LanguageSettings.model_fields)
def test_a_wish_that_changes_nothing_is_refused(kind, name):
    settings = LanguageSettings(**{name: CHANGED[name]})
    if name in USED.get(kind, ()):
        settings.refuse_unused(kind)
        return
    with pytest.raises(
        UserError, match=rf"^--.* changes nothing for a teacher that is {kind}; got"
    ):
        settings.refuse_unused(kind)


def test_an_address_is_asked_in_its_own_way():
    LanguageSettings(endpoint={"price": 2.0}, yes="Ja", no="Nein").refuse_unused(
        "yes_no", at_an_address=True
    )
    with pytest.raises(UserError, match="--length changes nothing for an address; got 100"):
        LanguageSettings(length=100).refuse_unused("yes_no", at_an_address=True)


def test_nothing_said_is_nothing_refused():
    for kind in ("encoder", *USED):
        LanguageSettings().refuse_unused(kind)
