# `make demo` runs the main job, `make test` the tests; both install what they need first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PEERS  := .venv-peers
TYPING := .typing/gascnn
FIDELITY_NETWORKS ?= 300
FIDELITY_FIRST ?= 0
FIDELITY_MODELS ?= stock
PORTIONS := models toolkit exporters hardware benchmarks
# Pinned versions are those the tests ran with; PyPI's torch is the same release with CUDA.
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup browser peers demo test test-peers fidelity fidelity-speed lint typing clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready
	@$(BIN)/gascnn lava install --quiet

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[all,dev]'
	@touch $@

# What `gascnn bench simulator` is compared with, in an environment of its own; see docs/benchmarks.md.
peers: $(PEERS)/.ready

$(PEERS)/.ready: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers/requirements.txt
	@touch $@

demo: setup
	$(BIN)/gascnn demo

test: setup browser
	$(BIN)/python -m pytest

# What asks other frameworks themselves; `make test` compares with their recorded answers.
test-peers: setup peers
	$(BIN)/python -m pytest -m peers

# The report's page is opened in a real Chromium. Where none is installed, Debian's and Ubuntu's package is.
browser:
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null || { \
	  run=$$(test "$$(id -u)" = 0 || echo sudo -n); \
	  $$run apt-get update -qq && $$run apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	} || { echo "the report's tests need Chromium; install chromium or google-chrome and run make test again"; exit 1; }

# Random networks in the real Lava against the simulator; FIDELITY_FIRST=seed FIDELITY_NETWORKS=1 runs one again.
fidelity: setup
	PYTHONPATH=tests/hardware $(BIN)/python -m fidelity --networks $(FIDELITY_NETWORKS) --first $(FIDELITY_FIRST) \
	  --models $(FIDELITY_MODELS)

fidelity-speed: setup
	PYTHONPATH=tests/hardware $(BIN)/python -m fidelity.speed --networks $(FIDELITY_NETWORKS) --first $(FIDELITY_FIRST)

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
	rm -rf $(VENV) $(PEERS) .typing build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
