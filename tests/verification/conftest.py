"""Toys that readers read, and our side of the comparison, for all tests of this folder."""

import shutil

import pytest


def saved(folder, **config):
    from embedtrain.models.build import build_encoder, save_encoder
    from embedtrain.models.dense.config import DenseConfig

    sides = {"query": {"prompt": "query: ", "length": 12}, "document": {"length": 24}}
    save_encoder(build_encoder(DenseConfig(**{**sides, **config})), folder)
    return str(folder)


def opened(folder, **data):
    from embedtrain.models.build import load_encoder
    from embedtrain.verification.comparison import Comparison, Data
    from embedtrain.verification.ours import Ours

    return Comparison(Ours(load_encoder(folder)), Data(**data))


@pytest.fixture(scope="session")
def mean_folder(bert, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("mean") / "toy", backbone=bert, pooling="mean")


@pytest.fixture(scope="session")
def last_folder(bert, tmp_path_factory):
    from transformers import AutoTokenizer

    backbone = tmp_path_factory.mktemp("with-eos") / "bert"
    shutil.copytree(bert, backbone)
    AutoTokenizer.from_pretrained(bert, eos_token="[SEP]").save_pretrained(backbone)
    folder = tmp_path_factory.mktemp("last") / "toy"
    return saved(folder, backbone=str(backbone), pooling="last_token")


@pytest.fixture(scope="session")
def projected_folder(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("projected") / "toy"
    return saved(folder, backbone=bert, pooling="mean", projection=16)


@pytest.fixture(scope="session")
def mean_model(mean_folder, sentences):
    return opened(mean_folder, queries=sentences[:8], documents=sentences[8:32])


@pytest.fixture(scope="session")
def last_model(last_folder, sentences):
    return opened(last_folder, queries=sentences[:8], documents=sentences[8:32])


@pytest.fixture(scope="session")
def projected_model(projected_folder, sentences):
    return opened(projected_folder, queries=sentences[:8], documents=sentences[8:32])
