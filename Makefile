PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: report test lab bench lint clean

report: $(VENV)/ready  ## simulate, train, evaluate; leaves runs/default/report.html
	$(BIN)/python -m astroclip_nb.run --profile default --report

test: $(VENV)/ready  ## the test suite, two files at a time, each on one thread: with more they would wait for each other
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lab: $(VENV)/ready  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir notebooks

bench: $(VENV)/ready  ## every fast path against the plain one, in minutes
	$(BIN)/python -m benchmarks.bench

lint: $(VENV)/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:  ## remove the runs, keep the environment
	rm -rf runs

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "This needs Python 3.11 or 3.12: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing the pinned requirements (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet $$($(PYTHON) -c 'import tomllib; print(next(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith("torch==")))')
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
