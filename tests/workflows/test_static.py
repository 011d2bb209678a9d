"""Static embeddings: rows of words from an encoder, sentence-level components, distillation, export."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedtrain.errors import UserError
from embedtrain.models.build import load_dense, save_encoder
from embedtrain.models.static.distil import (
    Words,
    bag_vectors,
    contextual_rows,
    distil,
    sentence_components,
    similarity_loss,
    words_encoder,
)
from embedtrain.workflows.static import StaticConfig, make_static


def test_a_row_is_the_mean_over_places_of_the_mean_over_sub_tokens(bert):
    model = load_dense(bert).eval()
    texts = ["red cat", "the Red dog runs"]
    words = Words(["red", "runs"])
    rows = contextual_rows(model, texts, words, per_word=100)
    with torch.no_grad():
        states = [
            model.states(model.tokenization.encode([text], "document"), packed=False)
            for text in texts
        ]
    first, second = (model.tokenizer.tokenize(text) for text in texts)
    red = [states[0][1 + first.index("red")], states[1][1 + second.index("red")]]
    torch.testing.assert_close(rows[1], torch.stack(red).mean(0))
    pieces = model.tokenizer.tokenize("runs")
    start = 1 + second.index(pieces[0])
    torch.testing.assert_close(rows[2], states[1][start : start + len(pieces)].mean(0))
    assert not rows[0].any()


def test_texts_without_a_word_that_is_still_looked_at_are_not_encoded(bert, monkeypatch):
    model, words, encoded = load_dense(bert).eval(), Words(["red", "runs"]), []
    run = model.states
    monkeypatch.setattr(
        model, "states", lambda texts, **rest: encoded.append(len(texts)) or run(texts, **rest)
    )
    block = [f"red {word}" for word in ("cat", "dog")] * 512
    rows = contextual_rows(model, [*block, "red tree", "the cat", "red runs"], words, per_word=2)
    assert sum(encoded) == 1024 + 1, "of the second block only the text with the new word"
    alone = contextual_rows(model, [*block, "red runs"], words, per_word=2)
    torch.testing.assert_close(rows, alone)


def test_the_order_of_words_and_unknown_ones_change_nothing():
    words = Words(["red", "cat", "dog"])
    rows = torch.randn(4, 6)
    rows[0] = 0
    bags = words.bags(["red cat dog", "Dog red cat", "zebra dog , red cat", "zebra"])
    vectors = bag_vectors(rows, bags)
    torch.testing.assert_close(vectors[0], vectors[1])
    torch.testing.assert_close(vectors[0], vectors[2])
    assert not vectors[3].any()


def toy() -> tuple[Words, torch.Tensor, list[str]]:
    generator = np.random.default_rng(0)
    names = [f"w{i}" for i in range(40)]
    rows = torch.from_numpy(generator.normal(size=(41, 16)).astype(np.float32)) + 2.0
    texts = [" ".join(generator.choice(names, 6)) for _ in range(200)]
    return Words(names), rows, texts


def test_taking_the_first_components_away_spreads_sentences():
    words, rows, texts = toy()
    bags = words.bags(texts)

    def mean_cosine(table: torch.Tensor) -> float:
        unit = torch.nn.functional.normalize(bag_vectors(table, bags, "mean"), dim=1)
        return float((unit @ unit.T).mean())

    assert mean_cosine(rows) > 0.5
    assert mean_cosine(sentence_components(rows, bags, 12, 2)) < 0.1


def test_all_components_are_an_isometry_up_to_the_mean():
    words, rows, texts = toy()
    bags = words.bags(texts)
    changed = sentence_components(rows, bags, 16, 0)
    before, after = ((table[1:, None] - table[None, 1:]).norm(dim=2) for table in (rows, changed))
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


def test_the_distillation_loss_is_the_teachers_entropy_where_both_agree():
    teacher = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(teacher, dim=1)
    p = (unit @ unit.T / 0.05).fill_diagonal_(-torch.inf).softmax(1)
    entropy = -(p * p.clamp_min(1e-300).log()).sum(1).mean()
    torch.testing.assert_close(similarity_loss(3 * teacher, teacher), entropy)
    other = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert similarity_loss(other, teacher) > entropy


def test_distillation_brings_the_table_nearer_to_the_teacher():
    words, rows, texts = toy()
    bags = words.bags(texts)
    teacher = bag_vectors(torch.randn(41, 8, generator=torch.Generator().manual_seed(3)), bags)
    settings = {"steps": 150, "batch_size": 64, "learning_rate": 3.0e-2, "seed": 0}
    trained = distil(rows, bags, teacher, **settings)
    lowest = similarity_loss(teacher, teacher)
    before, after = (
        similarity_loss(bag_vectors(table, bags), teacher) - lowest for table in (rows, trained)
    )
    assert after < before / 2
    assert not trained[0].any()


def test_the_folder_loads_in_sentence_transformers_and_gives_the_same_vectors(tmp_path):
    words, rows, _ = toy()
    rows[0] = 0
    save_encoder(words_encoder(words, rows), tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(["W1 w2, w3", "w5"])
    ours = torch.nn.functional.normalize(bag_vectors(rows, words.bags(["W1 w2, w3", "w5"])), dim=1)
    np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-6)


def test_the_command_makes_a_folder_and_says_how_near_it_is(bert, sentences, tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(sentences) + "\n")
    config = StaticConfig(dim=12, removed=1, steps=20, batch_size=32, min_count=1)
    figures = make_static(bert, path, tmp_path / "static", config)
    assert -1 <= figures["correlation_before"] <= 1
    assert SentenceTransformer(str(tmp_path / "static")).encode(["red cat"]).shape == (1, 12)


def test_sizes_and_texts_that_do_not_fit_are_refused(bert, sentences, tmp_path):
    few, many = tmp_path / "few.txt", tmp_path / "many.txt"
    few.write_text("red cat\n")
    many.write_text("\n".join(sentences) + "\n")
    cases = [
        (few, StaticConfig(dim=4), "too few texts"),
        (many, StaticConfig(dim=30), "32 dimensions"),
        (many, StaticConfig(dim=4, min_count=10_000), "often enough"),
    ]
    for path, config, message in cases:
        with pytest.raises(UserError, match=message):
            make_static(bert, path, tmp_path / "out", config)
