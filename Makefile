# `make demo` runs the main job, `make test` the tests; both install what they need first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TYPING := .typing/gascnn
PORTIONS := models toolkit exporters hardware benchmarks
# Pinned versions are those the tests ran with; PyPI's torch is the same release with CUDA.
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup demo test lint typing clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready
	@$(BIN)/gascnn lava install --quiet

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[all,dev]'
	@touch $@

demo: setup
	$(BIN)/gascnn demo

test: setup
	$(BIN)/python -m pytest

lint: setup typing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p gascnn
	$(BIN)/lint-imports
	$(BIN)/codespell

# mypy cannot follow setuptools' package mapping: give it a folder of links that looks like the installed package.
typing:
	@mkdir -p $(TYPING)
	@for portion in $(PORTIONS); do ln -sfn ../../$$portion $(TYPING)/$$portion; done

clean:
	rm -rf $(VENV) .typing build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
