# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else: they make their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
TRAIN = $(foreach i,$(shell seq 0 24),$(DEMO)/train_$(i).h5)
TEST = $(foreach i,$(shell seq 0 11),$(DEMO)/test_$(i).h5)

.PHONY: demo test lint docs bench clean

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# 24 simulations to train on, one to validate on, and twelve with other seeds to test on.
demo: $(VENV)/.installed
	rm -rf $(DEMO)
	mkdir -p $(DEMO)
	$(BIN)/kerasgal simulate $(DEMO)/train.h5 --realisations 25 --seed 1
	$(BIN)/kerasgal simulate $(DEMO)/test.h5 --realisations 12 --seed 1001
	$(BIN)/kerasgal protohalo train $(TRAIN) --preset demo --run $(DEMO)/protohalo
	$(BIN)/kerasgal protohalo predict $(DEMO)/protohalo $(DEMO)/test_0.h5 --output $(DEMO)/test_0_protohalo.h5
	$(BIN)/kerasgal protohalo evaluate $(DEMO)/protohalo $(TEST) --output $(DEMO)/evaluation

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	$(BIN)/flake8 kerasgal apps tests docs

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/sphinx-build -W -q docs docs/_build

bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/pipeline.py
	$(BIN)/python tests/benchmarks/watershed.py

clean:
	rm -rf $(VENV) $(DEMO) docs/_build build dist *.egg-info
