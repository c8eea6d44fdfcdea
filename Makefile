# `make demo` on a fresh machine needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# Bytecode is kept, whatever the shell says: without it every process compiles torch anew.
export PYTHONDONTWRITEBYTECODE :=

PIN := $(UV) pip compile -q --universal --generate-hashes --no-annotate --no-header --python-version 3.11

# Each process has the tests of whole files, or all those that share a server; see tests/conftest.py.
PARALLEL := --dist loadfile --no-loadscope-reorder --numprocesses
# A process a core, and one more, for the first waits for its servers most of the time.
PROCESSES = $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)')

FAST := "not services and not slow and not benchmark"

.DEFAULT_GOAL := help
.PHONY: help demo up down test test-fast check format schemas manifests product requirements clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/ready  ## train small networks on digits, upload them to a directory, show what comes of it
	$(BIN)/layerscope demo

up: $(VENV)/ready  ## run the real stack here: MinIO, Kafka, Redis, Milvus Lite, every function, the data plane
	$(BIN)/layerscope up

down: $(VENV)/ready  ## stop it
	$(BIN)/layerscope down

test: $(VENV)/ready  ## every test, real services included
	$(BIN)/python -m tests.install_programs
	$(BIN)/pytest -q $(PARALLEL) $(PROCESSES) -m "not benchmark" --durations=25
	$(BIN)/pytest -q -m benchmark

test-fast: $(VENV)/ready  ## the tests that need no service, under a minute
	$(BIN)/pytest -q $(PARALLEL) auto -m $(FAST)

check: $(VENV)/ready  ## lint, types, imports, schemas, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m layerscope.schemas --check
	$(BIN)/python -m layerscope.contracts --check
	$(BIN)/python -m layerscope.deployment --check

format: $(VENV)/ready  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: $(VENV)/ready  ## write the JSON Schemas anew
	$(BIN)/python -m layerscope.schemas
	$(BIN)/python -m layerscope.contracts

product: $(VENV)/ready  ## write what a product needs, or what one lacks: make product NAME=class_margins
	$(BIN)/python -m layerscope.product_skeleton '$(NAME)'
	$(BIN)/python -m layerscope.schemas
	$(BIN)/python -m layerscope.deployment

manifests: $(VENV)/ready  ## write knative/base from the declarations, and render what `up` reads
	$(BIN)/python -m layerscope.deployment

requirements: $(VENV)/ready  ## pin every dependency anew: all of them, and what an image has
	$(PIN) pyproject.toml --all-extras -o requirements/all.txt
	$(PIN) pyproject.toml --constraint requirements/all.txt --extra tracing -o requirements/base.txt
	$(PIN) pyproject.toml --constraint requirements/all.txt --extra compute --extra tracing -o requirements/compute.txt
	$(PIN) --group images --constraint requirements/all.txt -o requirements/images.txt

clean:  ## remove what the other targets made here
	rm -rf $(VENV) .layerscope .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/ready: requirements/all.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/installer.txt
	$(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements/all.txt
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@
