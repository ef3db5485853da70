# make lab     open the course in JupyterLab        PORT=9999  BROWSER=no
# make test    run every check
# make bench   measure this machine, write records to data/results/
# make gpu     on a machine with a CUDA GPU: its tests and benches, records to gpu-records/
# Settings for the first start: PYTHON=python3.12, TORCH_INDEX=<wheel index, see the README>
export PYTHON ?= python3
export TORCH_INDEX ?=
# Two test processes share the cores: OpenMP's threads must sleep when they wait. Spinning made a test 8 times slower.
unit nbval: export OMP_WAIT_POLICY = passive
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt constraints-cuda.txt .ci/setup

.PHONY: lab setup test lint simulator unit nbval notebooks bench gpu clean

lab: .venv/ready-lab
	@$(BIN)/specviz lab $(if $(PORT),--port $(PORT)) $(if $(filter no,$(BROWSER)),--no-browser)

setup: .venv/ready-dev

test: lint simulator nbval unit

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The simulator replaces Numba's CUDA target when it is imported, so it has a process of its own.
simulator: setup
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/pytest -q tests/simulator

# Every notebook's stored outputs against a fresh run.
nbval: setup
	$(BIN)/pytest -q -n 2 --dist loadfile --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg notebooks

# Unit tests, the kernels compiled without a GPU, JupyterLab in a browser. In their own order, or the slow pages,
# which are few tests, would come last and one core would wait.
unit: setup
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --durations=8 --ignore=tests/simulator

# Run the notebooks and keep their outputs, after they were edited.
notebooks: setup
	$(BIN)/python tests/execute_notebooks.py
	$(BIN)/ruff format notebooks

bench: setup
	$(BIN)/specviz bench threshold
	$(BIN)/specviz bench slider
	$(BIN)/specviz bench roofline
	$(BIN)/specviz bench conv
	$(BIN)/specviz bench pool
	$(BIN)/specviz bench filters
	$(BIN)/specviz bench memory
	$(BIN)/specviz bench compress

# Runs from the source tree with whatever Python has torch and numba-cuda there; installs nothing.
OUT ?= gpu-records
gpu:
	PYTHONPATH=.:kernels $(PYTHON) -m pytest -q -m gpu --noconftest -p no:cacheprovider tests/test_kernel_*.py
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench threshold --out $(OUT)
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench roofline --out $(OUT)
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench conv --out $(OUT)
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench pool --out $(OUT)
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench filters --out $(OUT)
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench memory --out $(OUT)
	PYTHONPATH=.:kernels $(PYTHON) -m specviz.cli bench compress --out $(OUT)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/ready-lab: $(INPUTS)
	@.ci/setup ready-lab

.venv/ready-dev: $(INPUTS)
	@.ci/setup ready-dev dev,ptx,bench
