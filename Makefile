# make simulate   set up an environment and run the main job on real digits
# make test       set up an environment and run the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: simulate test test-long test-plain fuzz lint wheel mutation benchmark clean

simulate: $(INSTALLED)
	$(BIN)/bitline simulate --out out/digits

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

# thousands of examples for every property; for humans
test-long: $(INSTALLED)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n 2 --dist loadfile -q

# the kernels as plain Python, and compiled with bounds checks
test-plain: $(INSTALLED)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q tests/crossbar
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(VENV)/numba-boundscheck $(BIN)/python -m pytest -q tests/crossbar

# hostile files, bombs, signals and closed streams against the command line: minutes, or FUZZ_SECONDS=36000
fuzz: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel: $(INSTALLED)
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist .

# break the code on purpose and see the tests catch it
mutation: $(INSTALLED)
	$(BIN)/python tests/mutation/breakages.py

benchmark: $(INSTALLED)
	$(BIN)/python -m benchmarks

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist build out
