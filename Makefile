# Each target makes the virtual environment it needs, the first time and whenever the dependencies change.
#   make demo        the whole workflow on the bundled model, in a few minutes
#   make lab         the notebooks in JupyterLab
#   make quick       while one works: ruff, and the fast tests on one architecture (under a minute)
#   make test        lint, types, tests and doctests (five to six minutes on two cores)
#   make test-tl3    the tests that depend on the model classes, with HookedTransformer too, under transformer-lens 3.9
#   make examples    run the documentation's examples and compare what they print with what the pages show
#   make notebooks   run every notebook
#   make bench       measure speed and memory, and write docs/benchmarks.md (about 40 minutes, on an idle machine)
#   make docs        build the documentation into site/ (broken links and references are errors)
#   make format      let ruff rewrite what it can
#   make clean       remove the environments and all that tools left
# Another interpreter: make test PYTHON=python3.12      Some of the tests: make pytest ARGS="tests/steering -x"

PYTHON ?= python3
VENV := .venv
VENV_TL3 := .venv-tl3
ARGS ?=
# A file's tests stay in one process: they share models and builds.
PARALLEL ?= -n auto --maxprocesses=4 --dist loadfile
# Pages and notebooks share nothing, and some take ten times as long as others.
EACH ?= -n auto --maxprocesses=4 --dist worksteal

# Python keeps what it compiled, whatever the shell says: else every process compiles torch and transformers for seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo lab quick test lint format pytest test-tl3 examples notebooks docs bench clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed
	$(VENV)/bin/caa-lens demo $(ARGS)

lab: $(VENV)/.installed
	$(VENV)/bin/jupyter lab notebooks $(ARGS)

test: lint pytest

quick: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/python -m pytest --quick $(PARALLEL) $(ARGS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

format: $(VENV)/.installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

pytest: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

# Under the last TransformerLens that has HookedTransformer; tests/selection.py says which tests. All: make test-tl3 WHICH=
WHICH ?= --model-classes
test-tl3: $(VENV_TL3)/.installed
	$(VENV_TL3)/bin/python -m pytest $(WHICH) $(PARALLEL) $(ARGS)

examples: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -m examples $(EACH) $(ARGS) tests/test_docs.py

notebooks: $(VENV)/.installed
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then \
		OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -p nbmake --nbmake --nbmake-timeout=600 -o testpaths= $(EACH) \
			notebooks $(ARGS); \
	else \
		echo "no notebooks"; \
	fi

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet $(ARGS)

# kaleido draws the plot, with a Chrome or Chromium that is there.
bench: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check kaleido
	HF_HUB_OFFLINE=1 $(VENV)/bin/python tests/benchmarks/run.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV_TL3) .venv-peers build dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt)

$(VENV_TL3)/.installed: pyproject.toml constraints-tl3.txt
	$(call install,$(VENV_TL3),constraints-tl3.txt)

# $(call install,ENVIRONMENT,CONSTRAINTS); --no-compile halves the time: Python compiles what is imported, when it is.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "caa_lens needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into $(1) (several minutes the first time)"
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install -qq --no-compile --disable-pip-version-check --constraint $(2) --editable '.[dev]'
	@touch $@
endef
