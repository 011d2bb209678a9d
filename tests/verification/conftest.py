"""Toys that readers read, and our side of the comparison, for all tests of this folder."""

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
def backbone(bert, tmp_path_factory):
    """The tiny BERT with larger weights, for layers to matter, and a token that ends texts."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("lively") / "bert"
    model = AutoModel.from_pretrained(bert)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= 8
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert, eos_token="[SEP]").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mean_folder(backbone, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("mean") / "toy", backbone=backbone, pooling="mean")


@pytest.fixture(scope="session")
def last_folder(backbone, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("last") / "toy", backbone=backbone, pooling="last_token")


@pytest.fixture(scope="session")
def projected_folder(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("projected") / "toy"
    return saved(folder, backbone=backbone, pooling="mean", projection=16)


@pytest.fixture(scope="session")
def mean_model(mean_folder, sentences):
    return opened(mean_folder, queries=sentences[:8], documents=sentences[8:32])


@pytest.fixture(scope="session")
def last_model(last_folder, sentences):
    return opened(last_folder, queries=sentences[:8], documents=sentences[8:32])


@pytest.fixture(scope="session")
def projected_model(projected_folder, sentences):
    return opened(projected_folder, queries=sentences[:8], documents=sentences[8:32])
