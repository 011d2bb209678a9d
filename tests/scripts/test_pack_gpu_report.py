import subprocess
from importlib.metadata import version

import pytest
from places import SCRIPTS


@pytest.fixture
def pack(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import pack_gpu_report

    return pack_gpu_report


def test_wheels_are_fetched_for_the_machine_in_the_versions_tested_here(pack, tmp_path, monkeypatch, capsys):  # fmt: skip
    calls, run, returncode = [], subprocess.run, [0]

    def instead(command, **options):
        if "pip" not in command:
            return run(command, **options)
        calls.append(command)
        (tmp_path / "toy-1-py3-none-any.whl").write_bytes(b"0" * 2**20)
        return subprocess.CompletedProcess(command, returncode[0])

    monkeypatch.setattr(pack.subprocess, "run", instead)
    arguments = ["--output", str(tmp_path), "--python", "3.13", "--have", "tqdm"]
    assert pack.main(arguments) == 0
    (call,) = calls
    assert call[call.index("--python-version") + 1] == "3.13"
    for name in ("transformers", "tokenizers", "pydantic-core", "wadler-lindig"):
        assert f"{name}=={version(name)}" in call, "what a package needs is packed with it"
    assert not any(word.startswith(("tqdm==", "torch==", "numpy==", "sympy==")) for word in call)
    assert "MiB of 64 with the checkout" in capsys.readouterr().out
    monkeypatch.setattr(pack, "LIMIT", 2**20)
    assert pack.main(arguments) == 1
    returncode[0] = 1
    assert pack.main(arguments) == 2
    assert "pip could not fetch" in capsys.readouterr().err
