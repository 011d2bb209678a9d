"""What ``import embedtrain`` gives."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import embedtrain


def test_no_module_has_the_name_of_a_public_function():
    modules = {module.name for module in pkgutil.iter_modules(embedtrain.__path__)}
    assert {"cli", "errors", "workflows"} <= modules
    assert not modules & set(embedtrain.__all__)


def test_public_names_stay_what_they_are_after_everything_was_imported():
    before = {name: getattr(embedtrain, name) for name in embedtrain.__all__}
    for module in pkgutil.iter_modules(embedtrain.__path__):
        if module.name != "__main__":
            importlib.import_module(f"embedtrain.{module.name}")
    for name, value in before.items():
        assert callable(value), name
        assert getattr(embedtrain, name) is value
        assert value.__doc__, name
    assert set(embedtrain.__all__) <= set(dir(embedtrain))


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, embedtrain; embedtrain.UserError; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_type_checkers_are_told_that_the_package_has_types():
    assert (Path(embedtrain.__path__[0]) / "py.typed").is_file()
