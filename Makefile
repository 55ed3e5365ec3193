PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
EXTRAS ?= dev
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Tests run in as many processes, those of one file in the same. WORKERS=0 runs them in none but pytest's own.
WORKERS ?= 2

# One thread per process: that is what a rank gets where two share two cores, and what keeps numbers reproducible.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo demo-vit test lint bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo     train AdamW, SAM and SAMPa on a small task and compare them"
	@echo "make demo-vit the same for a small vision transformer on handwritten digits"
	@echo "make test     run the whole test suite"
	@echo "make lint     check style, formatting, and that imports only point down"
	@echo "make bench    measure step time and memory against the stock Trainer"
	@echo "make clean    remove the virtual environment and everything generated"

demo: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python recipes/demo.py $(ARGS)

demo-vit: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python recipes/demo_vit.py $(ARGS)

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

bench: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/step_time.py $(ARGS)
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/memory.py
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/convergence.py

clean:
	rm -rf .venv output build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first and on its own, so that an index which offers several builds is asked for exactly one.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint $(CONSTRAINTS) torch
	$(BIN)/pip install --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	touch $@
