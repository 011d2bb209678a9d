.PHONY: check format lint types imports test

check: lint types imports test  ## everything CI asks, cheapest failure first; edits nothing

lint:
	ruff format --check .
	ruff check .

types:
	mypy

imports:
	lint-imports

test:
	pytest -q

format:  ## the only target that edits files
	ruff format .
	ruff check --fix .
