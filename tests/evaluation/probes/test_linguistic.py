"""Linguistic probes: what the sentences are, and what a layer reads where it can."""

import numpy as np
import pytest

from embedtrain.evaluation.probes.base import ProbeWish
from embedtrain.evaluation.probes.discovery import run_probe
from embedtrain.evaluation.probes.linguistic import (
    CONTENT,
    TASKS,
    layer_vectors,
    make_content,
    make_depth,
    make_length,
    make_order,
    probe_accuracy,
)
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.build import load_encoder


def made(make, number=90):
    return make(number, np.random.Generator(np.random.PCG64(0)))


def test_labels_are_what_the_sentences_show():
    length, content, depth = made(make_length), made(make_content), made(make_depth)
    assert [len(text.split()) for text in length.sentences] == [
        5 + 3 * one for one in length.labels
    ]
    named = [CONTENT.index(text.split()[-1]) for text in content.sentences]
    assert named == content.labels
    assert [text.count(" that ") for text in depth.sentences] == depth.labels
    assert {len(text.split()) for text in depth.sentences} == {13}


def test_words_out_of_order_are_the_words_of_a_sentence():
    task = made(make_order)
    for text, label in zip(task.sentences, task.labels, strict=True):
        in_order = text.startswith("the ") and text.split()[-2] == "the"
        assert in_order or label
    assert 0 < sum(task.labels) < len(task.labels)


def test_a_probe_reads_what_is_there_and_nothing_else():
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=300).tolist()
    vectors = generator.normal(size=(300, 8)).astype(np.float32)
    assert probe_accuracy(vectors, labels) < 0.5
    vectors[:, :3] += 5 * np.eye(3, dtype=np.float32)[labels]
    assert probe_accuracy(vectors, labels) > 0.95


def test_every_layer_of_a_dense_model_is_read(bert, cache):
    subject = Subject(load_encoder(bert), bert, cache)
    found = run_probe("linguistic", subject, ProbeWish(size=60))
    layers = subject.model.num_layers
    assert len(found) == len(TASKS) * (1 + layers)
    assert all(0 <= one.value <= 1 for one in found)
    vectors = layer_vectors(subject, ["a cat", "the dog runs"])
    assert list(vectors)[-1] == "the end"
    whole = subject.features(["a cat", "the dog runs"], "test")
    assert vectors["the end"] == pytest.approx(whole)
    assert not np.allclose(vectors["layer 1"], whole)
