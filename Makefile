# Luthier's workshop. `make install` once; the rest uses the `.venv` that it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/luthier-*)
EDITABLE := -e . $(addprefix -e ,$(PLUGINS:%=./%))
STAMP := $(VENV)/.installed
TESTS ?= tests plugins

.PHONY: help install quickstart test test-slow lint format bench bench-models bench-quality docs clean

help:
	@echo "make install     make .venv with the engine, the plugins and the tools (again only when pins change)"
	@echo "make quickstart  docstrings -> a tuned, quantized, validated model, with its report"
	@echo "make test        the tests (make test-slow: fault campaigns and real training too)"
	@echo "make lint        ruff, mypy --strict, import-linter, the generated docs"
	@echo "make bench       the figures of the docs that take minutes, measured side by side"
	@echo "make bench-models   layers beside adapters, and compressed models beside llama.cpp's; hours"
	@echo "make bench-quality  what each purpose reaches; hours (docs/quality.md)"
	@echo "make docs        write the generated reference pages"

install: $(STAMP)

$(STAMP): constraints.txt pyproject.toml $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip==$$(sed -n 's/^pip==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group dev $(EDITABLE)
	touch $(STAMP)

# mlflow is installed for its tests; a first run need not wait for it.
quickstart: install
	LUTHIER_DISABLE=mlflow $(BIN)/luthier run examples/quickstart/recipe.yaml

test: install
	$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist loadfile $(TESTS)

test-slow: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(TESTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy engine plugins/*/src
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python tests/benchmarks/bench_startup.py
	$(BIN)/python tests/benchmarks/bench_imports.py
	$(BIN)/python tests/benchmarks/bench_run.py
	$(BIN)/python tests/benchmarks/bench_pages.py
	$(BIN)/python tests/benchmarks/bench_tuning.py
	$(BIN)/python tests/benchmarks/bench_serve.py
	$(BIN)/python tests/benchmarks/bench_feedback.py

# bench_quantizers.py is called by itself, since it wants a dataset.
bench-models: install
	$(BIN)/python tests/benchmarks/bench_layers.py
	LUTHIER_DISABLE=mlflow $(BIN)/python tests/benchmarks/bench_compression.py

bench-quality: install
	LUTHIER_DISABLE=mlflow $(BIN)/python tests/benchmarks/bench_quality.py

docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
