"""Where the command writes what a probe found."""

import pytest
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError


def test_findings_are_not_written_over_a_folder(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("embedtrain.models.build.load_encoder", lambda _: pytest.fail("loaded"))
    done = CliRunner().invoke(app, ["probe", bert, "passkey", "--output", str(tmp_path)])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith("--output is a folder; got")
