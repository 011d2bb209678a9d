"""A server of every kind of model, for all tests of this folder that do not need one of their own."""

from pathlib import Path

import pytest
from serve_toys import corpus, running


@pytest.fixture(scope="session")
def prompted(bert, tmp_path_factory):
    """A dense model whose sides differ in prompt and length, and that knows an instruction."""
    from embedtrain.models.build import build_encoder, save_encoder
    from embedtrain.models.dense.config import DenseConfig

    folder = tmp_path_factory.mktemp("prompted") / "toy"
    config = DenseConfig(
        backbone=bert,
        query={"prompt": "query: ", "length": 12},
        document={"length": 24},
        instructions={"house": {"text": "near the house ", "template": "plain"}},
    )
    save_encoder(build_encoder(config), folder)
    return str(folder)


@pytest.fixture(scope="session")
def documents(sentences):
    return [*sentences[:30], "the red cat sleeps near the tree"]


@pytest.fixture(scope="session")
def server(prompted, cross_encoder, late_interaction, sparse_model, documents, tmp_path_factory):
    data = corpus(tmp_path_factory.mktemp("page"), documents)
    models = [prompted, cross_encoder, late_interaction, sparse_model]
    names = ("toy", "cross", "late", "sparse")
    with running(models, names=names, data=str(data), dimensions=(16, 8)) as found:
        yield found


@pytest.fixture(scope="session")
def encoder(prompted):
    from embedtrain.models.build import load_encoder

    return load_encoder(prompted)


@pytest.fixture
def packaged() -> Path:
    """The folder of the page."""
    from embedtrain.serving.page import page

    return Path(page.__file__).parent
