# ganfast: `make` lists the targets; each creates .venv and installs what it needs first.
#   PYTHON=python3.12   the interpreter that makes .venv
#   TORCH=torch         another torch (the default, a fixed version, keeps a machine without a GPU free of CUDA packages)
#   ORDER="-p no:randomly"   the tests in the order of their files, with the same random numbers each time
#   ARGS="..."          passed on to pytest (to tools/gate.py: names of operators, --archs 90)

PYTHON ?= python3
TORCH  ?= torch==2.13.0
ARGS   ?=
ORDER  ?=
DEMO   ?= --size 32 --width 32 --steps 3000 --real-target 0.9 --lr-decay linear
VENV   := .venv
BIN    := $(VENV)/bin
# a process for each core; threads of their own would wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ORDER) -n auto --maxprocesses 8 --dist worksteal
# without a GPU the CUDA half is built to see that it compiles: for one chip
ARCHS  := $(or $(GANFAST_CUDA_ARCHS),$(if $(shell command -v nvidia-smi),,90a))
SOURCES := pyproject.toml setup.py ganfast/activations.py $(shell find csrc -type f)

.PHONY: help demo test test-fast test-chips kernels lint bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

demo: $(VENV)/.demo  ## train a conditional GAN on real handwritten digits (about five minutes on two cores) and show it
	@echo "ganfast: training a conditional GAN on 1,797 real handwritten digits"
	$(BIN)/ganfast train cgan --data digits --outdir demo $(DEMO)
	@echo "ganfast: what a classifier trained on the real digits sees in 2,500 generated ones"
	$(BIN)/ganfast evaluate $$(ls -d demo/0* | tail -n 1)
	@echo "ganfast: ten of them, in shades"
	@$(BIN)/ganfast generate --network $$(ls -d demo/0* | tail -n 1) --seeds 0-9 --show
	@echo "ganfast: look at $$(ls -d demo/0* | tail -n 1)/fakes.png, beside reals.png; losses.png shows how it went"

test: $(VENV)/.dev $(VENV)/.triton-3.6  ## run the tests, fast ones first; then the operators' again on plain PyTorch
	$(PYTEST) -m "not chips" $(ARGS)
	GANFAST_BACKEND=reference $(PYTEST) -q -m "not slow and not gpu" -k "not compiled and not opcheck" tests/ops --ignore=tests/ops/test_registry.py

test-fast: $(VENV)/.dev  ## run the tests that take seconds
	$(PYTEST) -m "not slow and not chips" $(ARGS)

test-chips: $(VENV)/.dev $(VENV)/.triton-3.6  ## compile and test the kernels for A100 and B200, and under the oldest Triton
	$(PYTEST) -m chips tests/kernels $(ARGS)

kernels: $(VENV)/.dev $(VENV)/.triton-3.6  ## compile every kernel for A100, H200 and B200 and report on the machine code
	$(BIN)/python tools/gate.py --triton $(VENV)/triton-3.6 --json build/kernels.json $(ARGS)

lint: $(VENV)/.dev  ## check style with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.dev  ## time operators and whole steps against plain PyTorch (the quick set: about five minutes)
	$(BIN)/python -m pytest bench -q --benchmark-only --benchmark-columns=median,iqr,rounds -m "not full" $(ARGS)

clean:  ## remove .venv and build products
	rm -rf $(VENV) build dist *.egg-info ganfast/_C*
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.torch:
	@echo "ganfast: creating $(VENV) and installing $(TORCH)"
	@$(PYTHON) -m venv $(VENV) || { echo "ganfast: '$(PYTHON) -m venv' failed; install python3-venv or give PYTHON=/path/to/python3"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.demo: $(VENV)/.torch $(SOURCES)
	@echo "ganfast: installing ganfast with what the demo needs"
	@GANFAST_CUDA_ARCHS=$(ARCHS) PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[demo]'
	@echo "ganfast: compiled operators: $$(cat ganfast/_C.txt)"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(SOURCES)
	@echo "ganfast: installing ganfast with what the tests need"
	@GANFAST_CUDA_ARCHS=$(ARCHS) PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -e '.[dev]'
	@echo "ganfast: compiled operators: $$(cat ganfast/_C.txt)"
	@touch $@ $(VENV)/.demo

# the oldest Triton that ganfast takes, beside the installed one; its interpreter fails with later numpys
$(VENV)/.triton-3.6: $(VENV)/.torch
	@echo "ganfast: installing Triton 3.6 into $(VENV)/triton-3.6 for the tests"
	@rm -rf $(VENV)/triton-3.6
	@$(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/triton-3.6 "triton==3.6.*; platform_system == 'Linux'" "numpy<2.4"
	@touch $@
