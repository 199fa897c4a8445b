# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else: they make their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= demo
TRAIN = $(foreach i,$(shell seq 0 24),$(DEMO)/train_$(i).h5)
TEST = $(foreach i,$(shell seq 0 11),$(DEMO)/test_$(i).h5)
HALOMASS = $(DEMO)-halomass
HALOMASS_TRAIN = $(foreach i,0 1 2 3 4 5 6 7 8 9 10 11,$(HALOMASS)/train_$(i).h5)
HALOMASS_VALIDATION = $(foreach i,0 1,--validation $(HALOMASS)/validation_$(i).h5)
HALOMASS_TEST = $(foreach i,0 1 2 3,$(HALOMASS)/test_$(i).h5)
LADDER = $(DEMO)-ladder
LONGER = $(DEMO)-longer
LONGER_TRAIN = $(foreach i,$(shell seq 0 60),$(LONGER)/train_$(i).h5)
LONGER_VALIDATION = $(foreach i,$(shell seq 0 11),--validation $(LONGER)/validation_$(i).h5)
LONGER_TEST = $(foreach i,$(shell seq 0 11),$(LONGER)/test_$(i).h5)
CASCADE = $(DEMO)-cascade
LONGER_HALOMASS = $(DEMO)-halomass-longer
LONGER_HALOMASS_TRAIN = $(foreach i,$(shell seq 0 179),$(LONGER_HALOMASS)/train_$(i).h5)
LONGER_HALOMASS_VALIDATION = $(foreach i,$(shell seq 0 11),--validation $(LONGER_HALOMASS)/validation_$(i).h5)
LONGER_HALOMASS_TEST = $(foreach i,$(shell seq 0 11),$(LONGER_HALOMASS)/test_$(i).h5)
LONGER_HALOMASS_TWINS = $(foreach i,$(shell seq 0 11),--ceiling $(LONGER_HALOMASS)/twin_$(i).h5)
LONGER_CASCADE = $(DEMO)-cascade-longer
LONGER_CASCADE_TRAIN = $(foreach i,$(shell seq 0 16),$(LONGER_CASCADE)/train_$(i).h5)
DIFFUSION = $(DEMO)-diffusion
MORPH = $(DEMO)-morph
LONGER_MORPH = $(DEMO)-morph-longer

.PHONY: demo longer-protohalo demo-halomass longer-halomass ladder demo-cascade longer-cascade demo-diffusion longer-diffusion matter-diffusion demo-morph longer-morph models test test-all lint docs notebooks bench clean

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
	$(BIN)/kerasgal protohalo train $(TRAIN) --preset whole --optimizer muon --learning-rate 5e-3 --epochs 12 \
	  --steps-per-epoch 50 --run $(DEMO)/protohalo
	$(BIN)/kerasgal protohalo predict $(DEMO)/protohalo $(DEMO)/test_0.h5 --output $(DEMO)/test_0_protohalo.h5
	$(BIN)/kerasgal protohalo evaluate $(DEMO)/protohalo $(TEST) --output $(DEMO)/evaluation

# The network of `demo` on 61 boxes and twenty times as long, by Adam, in four trainings that each begin from the one
# before: some three hours on two cores.
longer-protohalo: $(VENV)/.installed
	rm -rf $(LONGER)
	mkdir -p $(LONGER)
	$(BIN)/kerasgal simulate $(LONGER)/train.h5 --realisations 61 --seed 1
	$(BIN)/kerasgal simulate $(LONGER)/validation.h5 --realisations 12 --seed 2001
	$(BIN)/kerasgal simulate $(LONGER)/test.h5 --realisations 12 --seed 5001
	$(BIN)/kerasgal protohalo train $(LONGER_TRAIN) $(LONGER_VALIDATION) --preset whole --run $(LONGER)/first
	$(BIN)/kerasgal protohalo train $(LONGER_TRAIN) $(LONGER_VALIDATION) --preset whole --init $(LONGER)/first \
	  --epochs 35 --run $(LONGER)/second
	$(BIN)/kerasgal protohalo train $(LONGER_TRAIN) $(LONGER_VALIDATION) --preset whole --init $(LONGER)/second \
	  --epochs 50 --run $(LONGER)/third
	$(BIN)/kerasgal protohalo train $(LONGER_TRAIN) $(LONGER_VALIDATION) --preset whole --init $(LONGER)/third \
	  --epochs 6 --learning-rate 1e-4 --run $(LONGER)/protohalo
	$(BIN)/kerasgal protohalo evaluate $(LONGER)/protohalo $(LONGER_TEST) --output $(LONGER)/evaluation

# Twelve simulations to train on, two to validate on and four to test on; the same network on three inputs, and trees.
demo-halomass: $(VENV)/.installed
	rm -rf $(HALOMASS)
	mkdir -p $(HALOMASS)
	$(BIN)/kerasgal simulate $(HALOMASS)/train.h5 --realisations 12 --seed 1
	$(BIN)/kerasgal simulate $(HALOMASS)/validation.h5 --realisations 2 --seed 501
	$(BIN)/kerasgal simulate $(HALOMASS)/test.h5 --realisations 4 --seed 1001
	for input in raw averaged final; do $(BIN)/kerasgal halomass train $(HALOMASS_TRAIN) $(HALOMASS_VALIDATION) \
	  --preset demo --input $$input --run $(HALOMASS)/$$input || exit 1; done
	$(BIN)/kerasgal halomass train $(HALOMASS_TRAIN) $(HALOMASS_VALIDATION) --preset demo --input multipoles --order 1 \
	  --run $(HALOMASS)/multipoles
	$(BIN)/kerasgal halomass evaluate $(HALOMASS)/raw $(HALOMASS_TEST) \
	  $(foreach input,multipoles averaged final,--compare $(HALOMASS)/$(input)) --sample 2000 --baseline --output $(HALOMASS)/evaluation

# A larger network on all channels, trained on 180 whole boxes: an hour on two cores.
longer-halomass: $(VENV)/.installed
	rm -rf $(LONGER_HALOMASS)
	mkdir -p $(LONGER_HALOMASS)
	$(BIN)/kerasgal simulate $(LONGER_HALOMASS)/train.h5 --realisations 180 --seed 1
	$(BIN)/kerasgal simulate $(LONGER_HALOMASS)/validation.h5 --realisations 12 --seed 2001
	$(BIN)/kerasgal simulate $(LONGER_HALOMASS)/test.h5 --realisations 12 --seed 8001
	$(BIN)/kerasgal halomass train $(LONGER_HALOMASS_TRAIN) $(LONGER_HALOMASS_VALIDATION) --preset whole \
	  --run $(LONGER_HALOMASS)/raw
	for i in $(shell seq 0 11); do $(BIN)/kerasgal simulate $(LONGER_HALOMASS)/twin_$$i.h5 \
	  --twin-of $(LONGER_HALOMASS)/test_$$i.h5 --seed $$((9001 + i)) || exit 1; done
	$(BIN)/kerasgal halomass evaluate $(LONGER_HALOMASS)/raw $(LONGER_HALOMASS_TEST) $(LONGER_HALOMASS_TWINS) \
	  --compare halomass-raw --sample 1000 --baseline --output $(LONGER_HALOMASS)/evaluation

# Multipoles in the demo's boxes, and in boxes of the paper's cells and range of masses. RAW="RUN..." are trained runs of
# `make demo-halomass` or like it, to stand beside the former.
ladder: $(VENV)/.installed
	rm -rf $(LADDER)
	mkdir -p $(LADDER)
	$(BIN)/kerasgal simulate $(LADDER)/train.h5 --realisations 12 --seed 1
	$(BIN)/kerasgal simulate $(LADDER)/validation.h5 --realisations 2 --seed 501
	$(BIN)/kerasgal simulate $(LADDER)/test.h5 --realisations 4 --seed 1001
	$(BIN)/kerasgal halomass ladder $(foreach i,0 1 2 3 4 5 6 7 8 9 10 11,$(LADDER)/train_$(i).h5) \
	  $(foreach i,0 1,--validation $(LADDER)/validation_$(i).h5) $(foreach i,0 1 2 3,--test $(LADDER)/test_$(i).h5) \
	  $(foreach run,$(RAW),--raw $(run)) --networks 5 --output $(LADDER)/coarse
	$(BIN)/kerasgal simulate $(LADDER)/fine_train.h5 --particles 128 --boxsize 25 --realisations 4 --seed 1
	$(BIN)/kerasgal simulate $(LADDER)/fine_validation.h5 --particles 128 --boxsize 25 --realisations 2 --seed 501
	$(BIN)/kerasgal simulate $(LADDER)/fine_test.h5 --particles 128 --boxsize 25 --realisations 3 --seed 1001
	$(BIN)/kerasgal halomass ladder $(foreach i,0 1 2 3,$(LADDER)/fine_train_$(i).h5) \
	  $(foreach i,0 1,--validation $(LADDER)/fine_validation_$(i).h5) $(foreach i,0 1 2,--test $(LADDER)/fine_test_$(i).h5) \
	  --low 10.846 --high 13.246 --patch 75 --shells 12 --samples 20000 --validation-samples 4000 --sample 3000 \
	  --networks 5 --output $(LADDER)/fine

# Four simulations with painted galaxies to train on, one to validate on and four to test on.
demo-cascade: $(VENV)/.installed
	rm -rf $(CASCADE)
	mkdir -p $(CASCADE)
	$(BIN)/kerasgal simulate $(CASCADE)/train.h5 --galaxies --particles 128 --realisations 5 --seed 1
	$(BIN)/kerasgal simulate $(CASCADE)/test.h5 --galaxies --particles 128 --realisations 4 --seed 3001
	$(BIN)/kerasgal cascade train $(foreach i,0 1 2 3 4,$(CASCADE)/train_$(i).h5) --preset demo --run $(CASCADE)/cascade
	$(BIN)/kerasgal cascade predict $(CASCADE)/cascade $(CASCADE)/test_0.h5 --catalogue \
	  --output $(CASCADE)/test_0_cascade.h5
	$(BIN)/kerasgal cascade evaluate $(CASCADE)/cascade $(foreach i,0 1 2 3,$(CASCADE)/test_$(i).h5) \
	  --output $(CASCADE)/evaluation

# Both phases on sixteen simulations, shown where within cells particles are densest, too; phase 2 nearly four times as
# long as the demo's. Tested on eight others, beside the demo's network: an hour.
longer-cascade: $(VENV)/.installed
	rm -rf $(LONGER_CASCADE)
	mkdir -p $(LONGER_CASCADE)
	$(BIN)/kerasgal simulate $(LONGER_CASCADE)/train.h5 --galaxies --particles 128 --realisations 17 --seed 1
	$(BIN)/kerasgal simulate $(LONGER_CASCADE)/test.h5 --galaxies --particles 128 --realisations 8 --seed 7601
	$(BIN)/kerasgal cascade train $(LONGER_CASCADE_TRAIN) --preset demo --channels density,finer --phase classify \
	  --run $(LONGER_CASCADE)/cascade
	$(BIN)/kerasgal cascade train $(LONGER_CASCADE_TRAIN) --preset demo --channels density,finer --phase regress \
	  --epochs 45 --decay cosine --averaging 0.999 --run $(LONGER_CASCADE)/cascade
	$(BIN)/kerasgal cascade evaluate $(LONGER_CASCADE)/cascade $(foreach i,$(shell seq 0 7),$(LONGER_CASCADE)/test_$(i).h5) \
	  --compare cascade-demo --output $(LONGER_CASCADE)/evaluation

# Boxes wide enough for rich clusters, though too coarse for the smallest galaxies; draws of galaxies on maps.
demo-diffusion: $(VENV)/.installed
	rm -rf $(DIFFUSION)
	mkdir -p $(DIFFUSION)
	$(BIN)/kerasgal simulate $(DIFFUSION)/train.h5 --galaxies --particles 128 --boxsize 75 --steps 12 \
	  --realisations 24 --seed 1
	$(BIN)/kerasgal simulate $(DIFFUSION)/test.h5 --galaxies --particles 128 --boxsize 75 --steps 12 \
	  --realisations 4 --seed 6001
	$(BIN)/kerasgal cascade diffusion train $(foreach i,$(shell seq 0 23),$(DIFFUSION)/train_$(i).h5) --preset demo \
	  --run $(DIFFUSION)/run
	$(BIN)/kerasgal cascade diffusion predict $(DIFFUSION)/run $(DIFFUSION)/test_0.h5 --draws 2 \
	  --output $(DIFFUSION)/test_0_draws.h5
	$(BIN)/kerasgal cascade diffusion evaluate $(DIFFUSION)/run $(foreach i,0 1 2 3,$(DIFFUSION)/test_$(i).h5) \
	  --maps 3 --draws 8 --output $(DIFFUSION)/evaluation

# The same given what cascade expects, whose networks are trained on five further boxes: the network that ships. Half an
# hour more, and tests on eight boxes of their own.
longer-diffusion: demo-diffusion
	$(BIN)/kerasgal simulate $(DIFFUSION)/apart.h5 --galaxies --particles 128 --boxsize 75 --steps 12 \
	  --realisations 5 --seed 101
	$(BIN)/kerasgal simulate $(DIFFUSION)/later.h5 --galaxies --particles 128 --boxsize 75 --steps 12 \
	  --realisations 8 --seed 7401
	$(BIN)/kerasgal cascade train $(foreach i,0 1 2 3 4,$(DIFFUSION)/apart_$(i).h5) --preset demo --cell 0.78125 \
	  --run $(DIFFUSION)/regressor
	$(BIN)/kerasgal cascade diffusion train $(foreach i,$(shell seq 0 23),$(DIFFUSION)/train_$(i).h5) --preset demo \
	  --regressor $(DIFFUSION)/regressor --run $(DIFFUSION)/longer
	$(BIN)/kerasgal cascade diffusion evaluate $(DIFFUSION)/longer $(foreach i,$(shell seq 0 7),$(DIFFUSION)/later_$(i).h5) \
	  --maps 3 --draws 8 --output $(DIFFUSION)/longer_evaluation

# The other way round, as Ono et al.: dark matter drawn given the galaxies of `demo-diffusion`.
matter-diffusion: demo-diffusion
	$(BIN)/kerasgal simulate $(DIFFUSION)/matter_test.h5 --galaxies --particles 128 --boxsize 75 --steps 12 \
	  --realisations 4 --seed 7201
	$(BIN)/kerasgal cascade diffusion train $(foreach i,$(shell seq 0 23),$(DIFFUSION)/train_$(i).h5) --preset demo \
	  --drawn matter --field log --gamma-min -9.3 --gamma-max 10 --no-fourier --run $(DIFFUSION)/matter
	$(BIN)/kerasgal cascade diffusion evaluate $(DIFFUSION)/matter \
	  $(foreach i,0 1 2 3,$(DIFFUSION)/matter_test_$(i).h5) --maps 3 --draws 8 --sampler multistep \
	  --output $(DIFFUSION)/matter_evaluation

# Made-up galaxies and their archetypes to train on; others, in three degrees of realism and as archetypes, to test on.
demo-morph: $(VENV)/.installed
	rm -rf $(MORPH)
	mkdir -p $(MORPH)
	$(BIN)/kerasgal morph simulate $(MORPH)/train.h5 --number 2000 --seed 1
	$(BIN)/kerasgal morph archetypes $(MORPH)/train_archetypes.h5 --table $(MORPH)/train.h5 --seed 1
	for kind in real fine smooth; do $(BIN)/kerasgal morph simulate $(MORPH)/$$kind.h5 --kind $$kind --number 500 \
	  --seed 1001 || exit 1; done
	$(BIN)/kerasgal morph archetypes $(MORPH)/archetypes.h5 --table $(MORPH)/real.h5 --seed 1001
	$(BIN)/kerasgal morph train --images $(MORPH)/train.h5 --archetypes $(MORPH)/train_archetypes.h5 --preset demo \
	  --run $(MORPH)/run
	$(BIN)/kerasgal morph score $(MORPH)/run $(MORPH)/real.h5 --output $(MORPH)/scores.ecsv
	$(BIN)/kerasgal morph evaluate $(MORPH)/run observed=$(MORPH)/real.h5 fine=$(MORPH)/fine.h5 \
	  smooth=$(MORPH)/smooth.h5 archetypes=$(MORPH)/archetypes.h5 --match log_mass,log_radius,n --control sky \
	  --output $(MORPH)/evaluation

# The networks of `demo-morph`, trained five times as long on three times as many galaxies, tested on others: an hour on two
# cores.
longer-morph: $(VENV)/.installed
	rm -rf $(LONGER_MORPH)
	mkdir -p $(LONGER_MORPH)
	$(BIN)/kerasgal morph simulate $(LONGER_MORPH)/train.h5 --number 6000 --seed 1
	$(BIN)/kerasgal morph archetypes $(LONGER_MORPH)/train_archetypes.h5 --table $(LONGER_MORPH)/train.h5 --seed 1
	for kind in real fine smooth; do $(BIN)/kerasgal morph simulate $(LONGER_MORPH)/$$kind.h5 --kind $$kind \
	  --number 500 --seed 7001 || exit 1; done
	$(BIN)/kerasgal morph archetypes $(LONGER_MORPH)/archetypes.h5 --table $(LONGER_MORPH)/real.h5 --seed 7001
	$(BIN)/kerasgal morph train --images $(LONGER_MORPH)/train.h5 --archetypes $(LONGER_MORPH)/train_archetypes.h5 \
	  --preset demo --epochs 25 --steps-per-epoch 240 --learning-rate 3e-3 --decay-factor 0.9995 --averaging 0.999 \
	  --run $(LONGER_MORPH)/run
	$(BIN)/kerasgal morph evaluate $(LONGER_MORPH)/run observed=$(LONGER_MORPH)/real.h5 fine=$(LONGER_MORPH)/fine.h5 \
	  smooth=$(LONGER_MORPH)/smooth.h5 archetypes=$(LONGER_MORPH)/archetypes.h5 --match log_mass,log_radius,n \
	  --control sky --output $(LONGER_MORPH)/evaluation

# The networks that come with kerasgal, from the demos' runs and one of protohalo's preset `demo`.
models: demo longer-protohalo demo-halomass longer-halomass demo-cascade longer-diffusion demo-morph longer-morph
	$(BIN)/kerasgal protohalo train $(TRAIN) --preset demo --run $(DEMO)/density
	$(BIN)/python data/networks.py .

# Where Python is told to keep no bytecode, each of the suite's processes would compile package and tests anew.
test test-all: export PYTHONDONTWRITEBYTECODE =

# All but the slowest, each of which tests at length what another one tests in short.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not slow'

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	$(BIN)/flake8 kerasgal apps tests docs

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/sphinx-build -W -q docs docs/_build/html

# The tutorials as notebooks with their outputs: some ten minutes on two cores. NAMES="thirty_seconds" writes that alone.
notebooks: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[notebook]'
	$(BIN)/python docs/notebooks.py docs/_build/notebooks $(NAMES)

# Every bar of speed and size, and whether it holds: up to an hour and a half on two cores. NAMES="watershed nbody" takes
# these alone. It installs Dask and PyTorch, from plain PyPI several GB; what cannot be installed is not measured.
bench: $(VENV)/.installed
	-$(BIN)/python -m pip install --quiet --editable '.[dask]'
	-$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python tests/benchmarks/bars.py $(NAMES)

clean:
	rm -rf $(VENV) $(DEMO) $(LONGER) $(HALOMASS) $(LADDER) $(CASCADE) $(LONGER_CASCADE) $(DIFFUSION) $(MORPH) $(LONGER_MORPH) docs/_build build dist *.egg-info
