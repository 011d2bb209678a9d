.PHONY: check docs format imports lint prove quickstart setup test types

# What many processes import is compiled once, also where the shell says not to.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
BIN := $(VENV)/bin/

# torch 2.13.0 stands first and alone: asked for later, pip could take a build with gigabytes of CUDA.
define install
	test -x $(BIN)python || python3 -m venv $(VENV)
	$(BIN)pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)pip install --quiet -c constraints.txt -e '.[$(1)]'
endef

quickstart:  ## install, then train, measure and export a model on real text
	$(call install,quickstart)
	$(BIN)embedtrain train quickstart --output runs/quickstart

setup:  ## install what the tests need
	$(call install,dev)

check: lint types imports docs test  ## everything CI asks, cheapest failure first; edits nothing

lint:
	$(BIN)ruff format --check .
	$(BIN)ruff check .

types:
	$(BIN)mypy

imports:
	$(BIN)lint-imports

docs:  ## the documentation, into site/; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)mkdocs build --strict

# One thread a worker and a file to a worker, whose fixtures are then built once. A worker that dies ends the run:
# pytest-xdist 3.8 with --dist loadfile may wait for ever after it has started another.
PYTEST := $(BIN)pytest -q -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0 --durations 10
test:
	$(PYTEST)

prove:  ## the slow proofs that `test` leaves out
	$(PYTEST) -m prove --dist load

format:  ## the only target that edits files
	$(BIN)ruff format .
	$(BIN)ruff check --fix .
