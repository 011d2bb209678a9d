from synthesis_toys import row

from embedtrain.synthesis.caps import ask_judge, cap, drop_improbable
from embedtrain.synthesis.settings import SynthesisConfig


def kept(rows):
    return [one.candidate.query for one in rows if one.kept]


def test_of_each_type_the_least_probable_are_taken():
    rows = [row(f"q{n}", log_probability=-float(n)) for n in range(10)]
    rows += [row(f"k{n}", type="keywords", log_probability=-50.0 - n) for n in range(10)]
    rows.append(row("unknown"))
    drop_improbable(rows, 0.1)
    assert [one.candidate.query for one in rows if not one.kept] == ["q9", "k9"]


def test_a_judge_takes_what_it_denies():
    rows = [row("yes"), row("no"), row("even")]
    ask_judge(
        rows, lambda pairs: [{"yes": 1.0, "no": -1.0, "even": 0.0}[query] for query, _ in pairs]
    )
    assert kept(rows) == ["yes", "even"]
    ask_judge(rows, None)


def test_a_long_manual_is_not_most_of_the_data():
    rows = [row(f"m{n}", name=f"manual#{n}") for n in range(1000)]
    rows += [row(f"s{n}", name=f"short{n}") for n in range(100)]
    cap(rows, SynthesisConfig(per_document=8))
    names = [one.candidate.document for one in rows if one.kept]
    assert names.count("manual") == 8
    assert len(set(names)) == 101


def test_the_best_found_stay_and_rules_in_their_order():
    rows = [row("third"), row("first"), row("second")]
    for one, rank in zip(rows, (3, 1, 2), strict=True):
        one.rank = rank
    cap(rows, SynthesisConfig(per_chunk=2))
    assert kept(rows) == ["first", "second"]
    rows = [row(maker, maker=maker) for maker in ("crop", "title", "heading")] + [row("asked")]
    cap(rows, SynthesisConfig(per_chunk=2))
    assert kept(rows) == ["title", "heading", "asked"]


def test_a_limit_draws_documents():
    rows = [row(f"q{n}", name=f"d{n // 2}#{n}") for n in range(40)]
    cap(rows, SynthesisConfig(limit=10))
    names = [one.candidate.document for one in rows if one.kept]
    assert len(names) == 10
    assert all(names.count(name) == 2 for name in names)


def test_rules_beside_a_language_model_have_a_share_of_their_own():
    rows = [row(f"m{n}", name="d#1") for n in range(3)]
    rows += [row(f"t{n}", maker="heading", name="d#1") for n in range(3)]
    cap(rows, SynthesisConfig(per_chunk=2, per_document=2))
    assert kept(rows) == ["m0", "m1", "t0", "t1"]
    cap(rows, SynthesisConfig(per_chunk=2, limit=3))
    assert kept(rows) == []
