# make demo      train the embedded default on two CPU workers
# make backbone  put Gemma 3 270M into models/
# make checks    lint, format, types
# make test      checks, then every test
# make bench-quick  training and prediction against TRL and the HF Trainer, ten minutes on two cores
# make bench-prediction   rows a second beside transformers' pipeline and generate
# make bench-gpu   one GPU: utilisation and the longest row that trains, beside TRL where it is installed
# make campaign-fuzz   ten minutes of mutated inputs
# make campaign-faults   kills, stops and damages small runs and counts what they survive; more than an hour
# make audit     known weaknesses of the pinned packages; needs the network
# make campaign-serving   a server under load, then malformed requests; needs the bundle of make demo
# make docs      pages that are made from the code
# make clean     remove what these made (runs/ and models/ stay)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
BACKBONE := models/gemma3-270m
# torch comes first and by itself, so that no other package chooses its build. Where pip's own indexes offer only the
# CUDA build and there is no GPU: make venv TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: venv demo backbone checks test campaign-fuzz campaign-faults campaign-serving audit bench-quick bench-prediction bench-gpu
.PHONY: docs clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python launchers/ray_train.py --config examples/demo.yaml

backbone: $(INSTALLED)
	$(PIP_INSTALL) -e '.[backbone]'
	$(BIN)/python examples/get_gemma3_270m.py $(BACKBONE)

checks: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two files at a time: ranks, Ray clusters, servers and browsers wait more than they compute.
test: checks backbone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 20 tests/unit tests/hostile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 40 tests/integration tests/gpu

bench-quick: backbone
	$(BIN)/python benchmarks/quick.py

bench-prediction: backbone
	$(BIN)/python benchmarks/prediction.py

bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu.py

campaign-fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaigns/fuzz.py --minutes 10

campaign-faults: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/campaigns/faults.py --kills 20 --rounds 3

# pip-audit has an environment of its own: what it needs is not what this project needs. --strict: a package that could
# not be looked up is a failure, as it is without a network.
audit:
	test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/pip install --quiet pip-audit; }
	.audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

campaign-serving: $(INSTALLED)
	$(BIN)/python benchmarks/serving.py --bundle runs/demo/bundle

docs: $(INSTALLED)
	$(BIN)/python -m clsgen_dist.config.rules > docs/compatibility.md

clean:
	rm -rf .venv .audit build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
