"""Toy corpora of several vectors per text."""

import numpy as np

from embedtrain.types import TokenVectors


def whole_tokens(num_texts, dim, seed, longest=6, shortest=1):
    """Texts whose inner products are exact in float32, so that rounding cannot differ."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, size=num_texts)
    values = rng.integers(-2, 3, size=(lengths.sum(), dim)).astype(np.float32)
    ids = rng.integers(0, 9, size=lengths.sum())
    return TokenVectors(values, lengths, ids)


def unit_tokens(num_texts, dim, seed, length=8):
    """Texts of unit vectors."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(num_texts * length, dim)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return TokenVectors(
        values, np.full(num_texts, length), rng.integers(0, 50, size=num_texts * length)
    )


def noisy_queries(documents, num_queries, length, noise, seed):
    """Queries of noisy tokens of one document each, and which document that is."""
    rng = np.random.default_rng(seed)
    answers = rng.choice(len(documents), size=num_queries, replace=False)
    starts = np.cumsum(documents.lengths) - documents.lengths
    chosen = [
        starts[answer] + rng.choice(documents.lengths[answer], size=length, replace=False)
        for answer in answers
    ]
    values = documents.values[np.concatenate(chosen)]
    values = values + noise * rng.normal(size=values.shape)
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return TokenVectors(values, np.full(num_queries, length)), answers


def texts_of(vectors):
    """The tokens of each text."""
    return np.split(vectors.values, np.cumsum(vectors.lengths)[:-1])


def maxsim_in_loops(queries, documents):
    """The definition, in float64."""
    return np.array(
        [
            [
                (query.astype(np.float64) @ document.astype(np.float64).T).max(axis=1).sum()
                if len(document)
                else np.finfo(np.float32).min
                for document in texts_of(documents)
            ]
            for query in texts_of(queries)
        ]
    )


def best_by_sorting(scores, num_results):
    """The best columns and their scores; equal scores by the lower column."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :num_results]
    return order, np.take_along_axis(scores, order, axis=1)


def topical_tokens(num_texts, dim, seed, length=40, topic=0.8):
    """Texts of unit vectors that share a direction, as the tokens of a real text do."""
    rng = np.random.default_rng(seed)
    topics, values = rng.normal(size=(num_texts, 1, dim)), rng.normal(size=(num_texts, length, dim))
    topics, values = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (topics, values))
    values = topic * topics + values
    values = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return TokenVectors(
        values.reshape(-1, dim).astype(np.float32), np.full(num_texts, length, dtype=np.int64)
    )
