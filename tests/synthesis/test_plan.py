"""The plan of queries: shares to one, and a function of the chunks' content alone."""

import random
from collections import Counter

import pytest
from writer_toys import chunks

from embedtrain.synthesis.language_settings import TYPES, LanguageConfig
from embedtrain.synthesis.plan import USER, dealt, plan

CONFIG = LanguageConfig(per_chunk=3)


def by_name(slots):
    return {(slot.chunk, slot.number): slot for slot in slots}


@pytest.mark.parametrize("number", [1, 2, 7, 40, 333])
def test_shares_are_met_to_one_query(number):
    ranks = [(random.Random(n).random().as_integer_ratio()[0], str(n), 0) for n in range(number)]
    counts = Counter(dealt(TYPES, ranks))
    assert sum(counts.values()) == number
    assert all(abs(counts[name] - share * number) < 1 for name, share in TYPES.items())


def test_the_order_of_chunks_changes_nothing():
    own = chunks(50)
    mixed = random.Random(0).sample(own, len(own))
    slots = plan(mixed, CONFIG, 0, TYPES)
    assert [slot.chunk for slot in slots[::3]] == [chunk.id for chunk in mixed]
    assert by_name(slots) == by_name(plan(own, CONFIG, 0, TYPES))
    assert by_name(slots) != by_name(plan(own, CONFIG, 1, TYPES))


def test_further_documents_move_the_kinds_of_few_others_and_nothing_else():
    own, more = plan(chunks(200), CONFIG, 0, TYPES), plan(chunks(202), CONFIG, 0, TYPES)
    later = by_name(more)
    pairs = [(slot, later[slot.chunk, slot.number]) for slot in own]
    moved = sum(before.type != after.type for before, after in pairs)
    assert moved <= 3 * 6  # three borders between kinds, six queries more
    for before, after in pairs:
        assert (before.seed, before.turn, before.difficulty) == (
            after.seed,
            after.turn,
            after.difficulty,
        )


def test_slots_say_who_asks_what_how():
    config = LanguageConfig(per_chunk=2, language=("de", "en"))
    slots = plan(chunks(400), config, 0, TYPES, personas=("a nurse", "a pilot"))
    assert all(slot.words == config.words[slot.type] for slot in slots)
    assert [slot.language for slot in slots[:4]] == ["de", "en"] * 2
    assert [slot.temperature for slot in slots[:4]] == [0.0, 0.8] * 2
    levels = Counter(slot.difficulty for slot in slots)
    assert levels["plain"] / len(slots) == pytest.approx(0.6, abs=0.08)
    assert levels["novice"] / len(slots) == pytest.approx(0.1, abs=0.05)
    assert Counter(slot.persona for slot in slots)["a nurse"] == pytest.approx(400, abs=80)
    assert len({slot.seed for slot in slots}) > 790


def test_queries_like_the_users_own_are_of_no_other_kind():
    slots = plan(chunks(3), CONFIG, 0, TYPES, is_users=True, user_words=(2, 9))
    assert {(slot.type, slot.words) for slot in slots} == {(USER, (2, 9))}


def test_the_language_of_a_chunk_is_kept():
    german = "Die Pumpe wurde im Werk gebaut und ist seit dem Jahr 1962 nicht mehr in der Stadt."
    (chunk,) = chunks(1)
    slots = plan([chunk.__class__(**{**chunk.__dict__, "text": german})], CONFIG, 0, TYPES)
    assert {slot.language for slot in slots} == {"de"}
