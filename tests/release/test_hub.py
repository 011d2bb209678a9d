"""Uploads, end to end against a Hub on this machine."""

import shutil

import pytest
import torch
from hub_upload_stub import HubUploadStub
from huggingface_hub import constants
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.dense.config import DenseConfig
from embedtrain.release import hub
from embedtrain.release.hub import plan_push, push

# huggingface_hub 2.4 uploads bytes in a way that its own HTTP client warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "hf_verysecrettoken"
CARD = """---
library_name: sentence-transformers
tags: [dense]
model-index:
- name: model
  results:
  - task: {type: retrieval}
    dataset: {type: scifact, name: scifact, split: test}
    metrics: [{type: ndcg_at_10, value: 0.6}]
---

# A model
"""


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    torch.manual_seed(3)
    config = DenseConfig(backbone=bert, query={"prompt": "query: "}, projection=8)
    place = tmp_path_factory.mktemp("hub") / "model"
    save_dense(build_dense(config), place)
    (place / "README.md").write_text(CARD)
    return place


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A Hub on this machine in place of the real one, and a token in the environment."""
    with HubUploadStub(tmp_path / "hub") as started:
        monkeypatch.setattr(constants, "ENDPOINT", started.url)
        template = started.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield started


def test_a_model_that_was_pushed_and_pulled_gives_identical_vectors(folder, stub, tmp_path, caplog):
    caplog.set_level("DEBUG")
    arguments = ["export", str(folder), "--output", str(tmp_path / "out"), "--push", "org/name"]
    dry = CliRunner().invoke(app, arguments)
    assert dry.exit_code == 0, dry.output
    assert "dry run: nothing was uploaded" in dry.output
    assert "org/name (private)" in dry.output
    assert not stub.asked, "a dry run asks nobody"
    done = CliRunner().invoke(app, [*arguments, "--confirm", "--overwrite"])
    assert done.exit_code == 0, done.output
    assert stub.created == {"org/name": True}, "private by default"
    assert f"Bearer {TOKEN}" in stub.tokens
    assert TOKEN not in done.output + dry.output + caplog.text
    texts = ["red cat", "a large blue dog runs over the tree"]
    pulled = load_dense("org/name")
    assert (pulled.contract, pulled.dim) == (load_dense(str(folder)).contract, 8)
    for side in ("query", "document"):
        ours, theirs = (
            encode_texts(model, texts, side) for model in (load_dense(str(folder)), pulled)
        )
        assert ours.tobytes() == theirs.tobytes()


def test_a_file_that_arrives_changed_is_found_and_a_missing_token_said(folder, stub, monkeypatch):
    stub.corrupt = "config.json"
    with pytest.raises(UserError, match=r"another file than was sent; got 'config\.json'"):
        push(plan_push(folder, "org/b"))
    stub.add("org/c", private=False)
    with pytest.raises(UserError, match="exists and is public"):
        push(plan_push(folder, "org/c"))
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="--push needs a token of the Hub"):
        push(plan_push(folder, "org/a"))


def test_the_plan_lists_every_file_and_what_readers_would_say(folder):
    upload = plan_push(folder, "org/name", public=True)
    assert not upload.private
    assert dict(upload.files)["README.md"] == len(CARD)
    assert upload.num_bytes == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert upload.problems == {"text-embeddings-inference": [], "vLLM": []}


def test_folders_and_names_that_should_not_go_up_are_refused(folder, tmp_path):
    for name in ("name", "a/b/c", "org/na me", "org/../x"):
        with pytest.raises(UserError, match="needs a name like org/name"):
            plan_push(folder, name)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "modeling.py").write_text("")
    with pytest.raises(UserError, match=r"file that can run code; got 'modeling\.py'"):
        plan_push(copy, "org/name")
    (copy / "modeling.py").unlink()
    for text, message in (
        ("---\nmodel-index:\n- name: model\n---\n", "is no valid card|cannot read"),
        ("---\ntags: [a\n---\n", "is no valid card"),
    ):
        (copy / "README.md").write_text(text)
        with pytest.raises(UserError, match=message):
            plan_push(copy, "org/name")
    (copy / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md is missing"):
        plan_push(copy, "org/name")


def test_a_hub_that_refuses_is_one_line(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError("the Hub is on fire\nline two")

    monkeypatch.setattr(hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(hub, "_create", refuse)
    with pytest.raises(
        UserError, match="could not be uploaded; got 'the Hub is on fire'"
    ) as caught:
        push(plan_push(folder, "org/name"))
    assert TOKEN not in str(caught.value)
