"""A script ends as the command line does: one line for what its user can mend."""

import subprocess
import sys

import pytest
from places import SCRIPTS


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        ("UserError('--steps', 'must be positive', got=-1)", 2),
        ("Interrupted('stopped at step 3')", 130),
        ("KeyboardInterrupt", 130),
    ],
)
def test_what_a_user_caused_ends_in_one_line(raised, code):
    program = (
        "from embedtrain.errors import Interrupted, UserError\n"
        "from exit_codes import run_main\n"
        f"def main(): raise {raised}\n"
        "run_main(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SCRIPTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1


def test_what_a_script_returns_is_its_exit_code(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from exit_codes import run_main

    for returned, code in ((1, 1), (None, None)):
        with pytest.raises(SystemExit) as left:
            run_main(lambda returned=returned: returned)
        assert left.value.code == code
