# Every target sets itself up: .venv is made when it is absent, and again when the dependencies change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
# Apart, since it pins a botocore of its own.
AWSCLI := $(VENV)/awscli/bin/aws
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Warnings of frameworks about processors and the like are no part of what is shown.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help venv quickstart test test-long test-all lint types bench bench-dataset bench-executor bench-optimize bench-server docs clean bench-convert sources clouds fuzz

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

venv: $(STAMP) ## Make .venv with everything for development

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python was found. Install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) --version); modelserve needs 3.11 or newer. Give one with PYTHON=..."; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 \
		|| { echo "Making $(VENV) with $$($(PYTHON) --version)"; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "Installing PyTorch for the CPU (1 of 2)"
	@$(PIP) install -c constraints.txt torch==2.13.0
	@echo "Installing modelserve with the other frameworks and its tools (2 of 2; some minutes the first time)"
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

quickstart: $(STAMP) ## Train three models, serve them, measure, print one table
	@$(BIN)/python examples/quickstart.py

test: lint types ## The everyday suite: lint, types, tests (below ten minutes)
	$(BIN)/python -m pytest -q -m "not long and not live"

$(AWSCLI): $(STAMP)
	@$(BIN)/python -m venv $(VENV)/awscli
	@$(VENV)/awscli/bin/python -m pip install --disable-pip-version-check --quiet "awscli<2"

test-long: $(STAMP) $(AWSCLI) ## The long rooms: every framework, fault matrices, fuzzing
	$(BIN)/python -m pytest -q -m "long and not live" --ignore backends/azureml --ignore backends/sagemaker --ignore backends/vertex
	@# The clouds' rooms wait for most of their time, so two of them go side by side.
	$(BIN)/python -m pytest -q -m "long and not live" -n 2 --dist loadscope backends/azureml backends/sagemaker backends/vertex

test-all: test test-long ## Everything that needs no cloud account

lint: $(STAMP) ## Style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

bench: bench-executor bench-optimize bench-convert ## All benchmarks, one after the other
	@$(BIN)/python tests/benchmarks/bench_import.py

$(BENCH_STAMP): $(STAMP)
	@echo "Installing what the benchmarks compare with"
	@$(PIP) install -c constraints.txt -e ".[bench]"
	@touch $(BENCH_STAMP)

bench-executor: $(BENCH_STAMP) ## The local executor beside the raw runtime and Python's own pools
	@cd tests/benchmarks && ../../$(BIN)/python bench_executor.py --record ../../docs/architecture/executor-results

bench-optimize: $(BENCH_STAMP) ## What the optimiser finds for digits, trees and a sentence-embedding model
	@HF_HUB_OFFLINE=1 $(BIN)/python tests/benchmarks/bench_optimize.py --table --record docs/reference/optimisation-results

bench-dataset: $(BENCH_STAMP) ## Whole data sets beside the limit, pandas, Python's pool and Ray Data
	@cd tests/benchmarks && ../../$(BIN)/python bench_dataset.py --chart ../../docs/architecture/datasets.png

bench-server: $(BENCH_STAMP) ## The server beside FastAPI tuned by hand and packaged peers, each in a venv of its own (needs wrk)
	@cd tests/benchmarks && ../../$(BIN)/python bench_server.py --rounds 3 --kill --table --page ../../docs/architecture/server-results

bench-convert: $(STAMP) ## Seconds of a conversion with its certificate, once the framework is imported
	@$(BIN)/python tests/benchmarks/bench_convert.py

sources: $(STAMP) ## Run the parity tests, and write docs/reference/sources.md from what they found
	@rm -f .sources.jsonl
	HF_HUB_OFFLINE=1 MODELSERVE_SOURCES=$(CURDIR)/.sources.jsonl $(BIN)/python -m pytest -q tests/parity -m "not live"
	@$(BIN)/python tests/parity/write_sources.py .sources.jsonl docs/reference/sources.md
	@rm -f .sources.jsonl

clouds: $(STAMP) ## Write docs/reference/clouds.md from what the backends declare
	@$(BIN)/python tests/contract/write_clouds.py

fuzz: $(STAMP) ## Ten minutes of made-up bytes for everything that reads them from the network
	@$(PIP) install -c constraints.txt atheris
	@$(BIN)/python tests/property/fuzz_wire.py --seconds 600

docs: $(STAMP) ## The reference, from docstrings, into site/
	@$(BIN)/python -m pdoc --output-directory site --docformat google modelserve modelserve_local
	@echo "site/index.html"

clean: ## Remove what can be made again
	rm -rf $(VENV) site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
