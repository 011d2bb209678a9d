"""What the benchmarks share: processes of their own, and words of the command line."""

import argparse
import json

import pytest
from places import SCRIPTS


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_measure

    return benchmark_measure


def test_each_run_is_a_process_and_its_figures_are_written_flat(measure, tmp_path):
    script, output = tmp_path / "script.py", tmp_path / "figures.json"
    script.write_text(
        "import json, os, sys; print(json.dumps({'pid': os.getpid(), 'n': int(sys.argv[1])}))"
    )
    found = measure.apart(script, {"one": [1], "two": [2]})
    assert (found["one"]["n"], found["two"]["n"]) == (1, 2)
    assert found["one"]["pid"] != found["two"]["pid"]
    measure.write_figures(output, found)
    assert json.loads(output.read_text())["two_n"] == 2


def test_a_run_that_fails_ends_all_with_its_line_and_code(measure, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("import sys; print('error: no such text', file=sys.stderr); sys.exit(2)")
    with pytest.raises(SystemExit) as end:
        measure.apart(script, {"one": []})
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: no such text\n"


def test_a_number_of_things_is_at_least_one(measure):
    assert measure.count("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="at least 1"):
        measure.count("0")
