"""Every key of every JSON file of a model folder, with every wrong value: one line, or a model that works."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from folder_faults import cases, fault_of, with_fault
from hypothesis import given, settings
from hypothesis import strategies as st
from late_toys import encoder

from embedtrain.errors import UserError
from embedtrain.models.backbone import folder_files
from embedtrain.models.build import build_dense, save_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.static.build import static_encoder

KINDS = ("dense", "parts", "late", "colberter", "stanford", "static")
EVERY = 47
"""The fast part takes every so-many-th case: a prime, so that all values and files are met."""


@pytest.fixture(scope="module")
def folders(bert: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: tmp_path_factory.mktemp(kind) / "model" for kind in KINDS}
    save_dense(build_dense(DenseConfig(backbone=bert, projection=8)), made["dense"])
    parts = {"attention_pooling": {"num_heads": 4}, "interaction": {"hidden": 4}}
    own = DenseConfig.model_validate({"backbone": bert, "query_gate": None, **parts})
    save_dense(build_dense(own), made["parts"])
    save_encoder(encoder(Path(bert)), made["late"])
    settings = {"words": True, "gate": True, "cls_dim": 6, "similarity": "dot"}
    save_encoder(encoder(Path(bert), query_expansion=False, **settings), made["colberter"])
    make_stanford(Path(bert), made["stanford"])
    make_static(Path(bert), made["static"])
    return made


def make_stanford(bert: Path, folder: Path) -> None:
    import torch
    from folder_faults import change_weights

    shutil.copytree(bert, folder)
    projection = {"linear.weight": torch.randn(8, 32)}
    change_weights(folder / "model.safetensors", lambda weights: weights.update(projection))
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config))
    said = {"query_token_id": "red", "doc_token_id": "green", "query_maxlen": 12, "doc_maxlen": 20}
    said |= {"attend_to_mask_tokens": False, "mask_punctuation": True}
    (folder / "artifact.metadata").write_text(json.dumps(said))


def make_static(bert: Path, folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer

    from embedtrain.models.backbone.word_table import table_backbone

    tokenizer = Tokenizer.from_file(str(bert / "tokenizer.json"))
    rows = torch.randn(tokenizer.get_vocab_size(), 8)
    backbone = table_backbone(rows, tokenizer, "table", folder)
    save_dense(static_encoder(backbone, DenseConfig(backbone="table")), folder)


def wrong(folder: Path, every: int, start: int) -> Iterator[str]:
    for path, keys, value in cases(folder)[start::every]:
        fault = with_fault(path, keys, value, lambda: fault_of(folder))
        if fault is not None:
            where = ".".join(map(str, keys))
            yield f"{path.relative_to(folder)}: {where} = {value!r}: {fault}"


def test_the_folders_themselves_load(folders):
    assert {kind: fault_of(folder) for kind, folder in folders.items()} == dict.fromkeys(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_value_is_refused_in_a_line_or_does_no_harm(kind, folders):
    found = list(wrong(folders[kind], EVERY, KINDS.index(kind)))
    assert not found, "\n".join(found)


@pytest.mark.prove
@pytest.mark.parametrize("kind", KINDS)
def test_every_wrong_value_is_refused_in_a_line_or_does_no_harm(kind, folders):
    assert len(cases(folders[kind])) > 400
    found = list(wrong(folders[kind], 1, 0))
    assert not found, "\n".join(found)


FORMS = [
    form
    for form in vars(folder_files).values()
    if isinstance(form, type)
    and issubclass(form, folder_files.FolderFile | folder_files.ModulesFile)
    and form is not folder_files.FolderFile
]
FIELDS = sorted({name for form in FORMS for name in form.model_fields})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(content=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
@settings(max_examples=40)
def test_any_json_is_a_form_or_refused_in_a_line(content):
    for form in FORMS:
        found: object = None
        with contextlib.suppress(UserError):  # anything else would be a traceback
            found = folder_files.checked("config.json", form, content)
        assert found is None or isinstance(found, form)
