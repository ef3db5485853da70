# make lab     open the course in JupyterLab        PORT=9999  BROWSER=no
# make quick   lint, types and a case of each quick test: under a minute
# make test    run every check                      BROWSER_TESTS=no  no browser is started, and none is installed
#              PTX=no  without NVIDIA's compilers (about 510 MB, proprietary): kernels are not compiled, but simulated
# make matrix  every layer and function under every tool of torch: the record and the page specviz/TORCH.md
# make bench   measure this machine, write records to data/results/
# make torture run what takes hours: random layers, killed runs, damaged files, flat memory, mutants; a record
# make gpu     on a machine with a CUDA GPU: its tests, benches and experiments, records to OUT=gpu-records
# Settings for the first start: PYTHON=python3.12, TORCH_INDEX=<wheel index, see the README>
export PYTHON ?= python3
export TORCH_INDEX ?=
# Two test processes share the cores: OpenMP's threads must sleep when they wait. Spinning made a test 8 times slower.
quick unit nbval torture: export OMP_WAIT_POLICY = passive
BIN := .venv/bin
READY_DEV := .venv/ready-dev$(if $(filter no,$(PTX)),-without-ptx)
export BROWSER_TESTS
INPUTS := pyproject.toml constraints.txt constraints-cuda.txt .ci/setup $(wildcard .ci/locks/*.txt)

.PHONY: lab setup browser lock advisories quick test lint simulator unit nbval notebooks matrix bench torture gpu clean clean-cache

lab: .venv/ready-lab
	@$(BIN)/specviz lab $(if $(PORT),--port $(PORT)) $(if $(filter no,$(BROWSER)),--no-browser)

setup: $(READY_DEV)

# After a pin or a range was changed: the locks again, with all hashes. Needs uv and the package index.
lock:
	$(PYTHON) .ci/lock

# Known advisories of all that is locked, by a pip-audit of its own. Needs the package index and OSV's service.
advisories:
	$(PYTHON) .ci/advisories

browser: setup
	@.ci/browser

# Types and the simulator take one core each.
test:
	@$(MAKE) --no-print-directory --jobs=2 lint simulator
	@$(MAKE) --no-print-directory --jobs=1 nbval unit

# Under a minute on two cores: lint, types, and one case of each test that does not start processes or compile.
quick: lint
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --quick --ignore=tests/simulator tests

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The simulator replaces Numba's CUDA target when it is imported, so it has a process of its own.
simulator: setup
	NUMBA_ENABLE_CUDASIM=1 $(BIN)/pytest -q tests/simulator

# Every notebook's stored outputs against a fresh run, with the answers that it keeps back.
nbval: setup
	$(BIN)/python tests/revealed.py .nbval
	SPECVIZ_CALIBRATION=shipped $(BIN)/pytest -q -n 2 --dist loadfile --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg .nbval

# Unit tests, the kernels compiled without a GPU, JupyterLab in a browser. In the order of tests/conftest.py, or the
# slow pages, which are few tests, would come last and one core would wait. COVERAGE=yes takes nearly half as long again.
unit: setup browser
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=8 --ignore=tests/simulator \
	  $(if $(COVERAGE),--cov --cov-report=term)

# Run the notebooks and keep their outputs, after they were edited.
notebooks: setup
	$(BIN)/python tests/execute_notebooks.py
	$(BIN)/ruff format notebooks

# About 25 minutes on two cores; stopped, it goes on where it was. `make unit` runs a core of it. timm asks for
# torchvision, of which its networks use nothing: it is left out.
matrix: setup
	@$(BIN)/python -m pip install -q -c constraints.txt --no-deps timm
	PYTHONPATH=.:kernels:tests $(BIN)/python -m matrix

BENCHES := threshold slider roofline conv choice swaps pool filters memory compress models codes predict training start sweep
bench: setup browser
	set -e; for name in $(BENCHES); do $(BIN)/specviz bench $$name; done

# Robustness in numbers, a record: random layers, killed runs, damaged files, flat memory, mutants. Some hours on two
# cores; PARTS="layers files" runs those alone.
torture: .venv/ready-torture
	cd tests && ../$(BIN)/python -W ignore -m torture $(PARTS)

# Runs from the source tree with whatever Python has torch and numba-cuda there: installs nothing, and needs no network
# if the experiments' data sets are in $SPECVIZ_DATA. What fails does not stop the rest, and is listed at the end. Each
# part is a target too, as gpu-tests, gpu-bench-training, gpu-sweep-specnet-beta; a sweep goes on where it was stopped.
OUT ?= gpu-records
SCALE ?= laptop
SWEEPS ?= specnet-beta bandlimited-compression saved-activations
WORKERS ?= 1
HERE := PYTHONPATH=.:kernels $(PYTHON)
GPU_BENCHES := $(patsubst %,gpu-bench-%,$(filter-out slider start sweep choice swaps,$(BENCHES)))
GPU_SWEEPS := $(patsubst %,gpu-sweep-%,$(SWEEPS))
.PHONY: gpu-tests $(GPU_BENCHES) $(GPU_SWEEPS)
gpu:
	@$(MAKE) --no-print-directory --keep-going --jobs=1 gpu-tests $(GPU_BENCHES) $(GPU_SWEEPS)

gpu-tests:
	$(HERE) -m pytest -q -m gpu --noconftest -p no:cacheprovider --continue-on-collection-errors $$(grep -l mark.gpu tests/*.py)

$(GPU_BENCHES): gpu-bench-%:
	$(HERE) -m specviz.cli bench $* --out $(OUT)

$(GPU_SWEEPS): gpu-sweep-%:
	$(HERE) -m specviz.cli sweep $* --scale $(SCALE) --workers $(WORKERS) --out $(OUT); status=$$?; \
	$(HERE) -m specviz.cli results $* --scale $(SCALE) --out $(OUT) --export $(OUT)/$*-$(SCALE).jsonl && exit $$status

# What Numba compiled and kept: it does not see a change in a file that a kernel's own file imports from.
clean-cache:
	find kernels specviz -name "*.nb[ci]" -delete

clean: clean-cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .matrix .nbval .torture

.venv/ready-lab: $(INPUTS)
	@.ci/setup ready-lab all

.venv/ready-dev: $(INPUTS)
	@.ci/setup ready-dev dev,ptx,bench

.venv/ready-dev-without-ptx: $(INPUTS)
	@.ci/setup ready-dev-without-ptx dev,bench

.venv/ready-torture: $(INPUTS)
	@.ci/setup ready-torture dev,ptx,bench,torture
