# Everything starts here. `make` alone lists the targets.
#
# Stamps keep a second call short: the environment is made again only when the pinned
# requirements or pyproject.toml change, the site only when a page changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Where this is set, each Python started below would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

# The Python that makes the environments; 3.11 or newer.
PYTHON ?= python3
PORT ?= 8000
# Every page is written anew, because a change of the book's settings shows on all;
# `make serve` leaves this out, for a faster look at the page in hand.
WHOLE ?= --all
# Which notebooks `make notebooks` executes.
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb)

BIN := .venv/bin
ENV := .venv/.stamp
COLAB := .venv-colab/.stamp
SITE := _build/html/.stamp
STEPS := $(PYTHON) scripts/steps.py
# Two tests at a time, each on one thread: small models gain little from a second one.
JOBS ?= 2
# What `make test` may take on two cores; a warning says when it is more.
MINUTES ?= 25
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
BESIDE := -n $(JOBS) --dist load --maxschedchunk 1
# No byte-code at install: Python writes it for what it imports, a tenth of the whole.
PIP := $(BIN)/pip --disable-pip-version-check
INSTALL := install -qq --no-compile
PAGES := $(shell find _config.yml _toc.yml book notebooks results -type f \
	-not -path '*/.*' -not -path '*/__pycache__/*' 2>/dev/null)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST)

.PHONY: book
book: ## make the environment, tangle the notebooks and build the site
	@$(STEPS) "environment::$(MAKE) env" "tangle::$(MAKE) tangle" \
		"site::$(MAKE) site"
	@echo "The book is in _build/html/index.html; open it, or read it with: make serve"

.PHONY: test
test: ## run everything that CI runs
	@$(STEPS) --keep-going --minutes $(MINUTES) \
		"environment::$(MAKE) env" \
		"lint, types, tangle::$(MAKE) lint" \
		"tests of package and tools::$(PYTEST) --continue-on-collection-errors \
			--ignore tests/site --ignore tests/lab --ignore tests/notebooks" \
		"notebooks as in Colab::$(MAKE) $(COLAB) && $(PYTEST) $(BESIDE) -v -rP tests/notebooks" \
		"site in the browser::$(PYTEST) $(BESIDE) tests/site" \
		"a notebook in JupyterLab::$(PYTEST) tests/lab"

.PHONY: test-lab
test-lab: $(ENV) ## open and run every notebook in JupyterLab, which takes long
	ANNOTATED_LAB=all $(PYTEST) -v tests/lab

.PHONY: train
train: $(ENV) ## train a Transformer on the little language and translate with it
	@echo "this takes some minutes; after Ctrl-C, make train goes on"
	$(BIN)/annotated train transformer --preset tiny --data little --pair en-fr \
		--tokens 512 --updates 2000 --learning-rate 2e-3 --warmup 200 --dropout 0 \
		--smoothing 0 --ema 0.98 --precision fp32 --validate-every 500 \
		--name little --resume
	$(BIN)/annotated translate --run little --quiet "The cat is on the mat ." \
		"The black cats do not follow us ." "Does the old queen wash the red mats ?"

.PHONY: vectors
vectors: $(ENV) ## train word vectors on the little world and show what they learned
	$(BIN)/annotated embed --corpus little-world --name little-world --resume
	$(BIN)/annotated neighbors rome --vectors little-world -n 5
	$(BIN)/annotated analogy paris france rome --vectors little-world -n 3
	$(BIN)/annotated analogy king queen prince --vectors little-world -n 3

.PHONY: serve
serve: book ## serve the site with live reload (PORT=8000)
	@$(BIN)/python scripts/serve.py --port $(PORT)

# The version is pinned, so Lab need not ask the network for a newer one.
.PHONY: lab
lab: $(ENV) ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks \
		--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

.PHONY: pdf
pdf: book ## print the whole book into one PDF (needs Chromium)
	@$(BIN)/python scripts/pdf.py

.PHONY: epub
epub: $(ENV) ## make an EPUB of the whole book
	@$(BIN)/python scripts/epub.py

.PHONY: notebooks
notebooks: $(ENV) ## execute the notebooks on clean kernels, normalise and tangle them
	@for notebook in $(NOTEBOOKS); do \
		echo "executing $$notebook"; \
		$(BIN)/jupyter nbconvert --log-level WARN --to notebook --execute \
			--ExecutePreprocessor.record_timing=False \
			--ExecutePreprocessor.timeout=900 \
			--output-dir .make/executed "$$notebook"; \
		mv ".make/executed/$$(basename "$$notebook")" "$$notebook"; \
		$(BIN)/tangle normalise "$$notebook"; \
	done
	@$(MAKE) tangle

.PHONY: tangle
tangle: $(ENV) ## write src/annotated from the notebooks
	@$(BIN)/tangle

.PHONY: scoreboard
scoreboard: $(ENV) ## write book/results.md from the records of all runs
	@$(BIN)/python scripts/scoreboard.py

.PHONY: lint
lint: $(ENV) ## ruff, types, workflows; package, notebooks and scoreboard are current
	@status=0; run() { echo "+ $$*"; "$$@" || status=1; }; \
	run $(BIN)/ruff check --no-cache . ; \
	run $(BIN)/ruff format --no-cache --check . ; \
	run $(BIN)/mypy ; \
	run $(BIN)/check-jsonschema --builtin-schema vendor.github-workflows \
		.github/workflows/*.yml ; \
	run $(BIN)/tangle --check ; \
	run $(BIN)/tangle normalise --check ; \
	run $(BIN)/python scripts/scoreboard.py --check ; \
	exit $$status

.PHONY: links
links: $(ENV) ## follow every link that leaves the book (needs a network)
	@$(BIN)/jupyter-book build . --builder linkcheck -n --keep-going

.PHONY: clean
clean: ## remove everything that make made, the environments too
	rm -rf .venv .venv-colab .make _build dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: env
env: $(ENV) ## make the environment .venv and nothing else

.PHONY: site
site: $(SITE)

$(ENV): requirements.txt pyproject.toml hatch_build.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"Python %d.%d found, 3.11 or newer needed; if it has another name: " \
		"make book PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing the pinned requirements into .venv; PyTorch is large: minutes"
	@{ $(PIP) $(INSTALL) "$$(grep -o '^pip==[0-9.]*' requirements.txt)" && \
		$(PIP) $(INSTALL) --requirement requirements.txt && \
		$(PIP) $(INSTALL) --no-deps --no-build-isolation --editable . ; } || { \
		echo "not installed. Is there a network, and room on the disk? The pins are" \
			"tested with Python 3.11 and 3.13, and this is $$($(BIN)/python -V)." \
			"The same command tries again." >&2; exit 1; }
	@touch $@

# What Colab's machines come with, and nothing of ours: the notebooks' first cells
# install the rest. Made anew each time, so that nothing is left from an older list.
$(COLAB): tests/notebooks/colab-requirements.txt | $(ENV)
	@echo "installing Colab's packages into .venv-colab"
	@$(PYTHON) -m venv --clear .venv-colab
	@$(PIP) --python .venv-colab/bin/python $(INSTALL) --requirement $<
	@touch $@

$(SITE): $(ENV) $(PAGES)
	@$(BIN)/jupyter-book build . -q -W -n --keep-going $(WHOLE)
	@touch $@
