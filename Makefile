# `make demo` and `make test` work in a fresh clone: they make .venv and install what is needed.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# The oldest Python that pyproject.toml names, where it is installed; else what $(PYTHON) is.
OLDEST_PYTHON ?= $(shell command -v python3.10 || command -v $(PYTHON))

.PHONY: demo test test-oldest lint format clean

demo: .venv/.ready
	$(BIN)/tpt predict examples/images --init examples/prompt.safetensors --lr 0.02 --format table

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# The same tests with the oldest version of every dependency that pyproject.toml allows.
test-oldest: .venv/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -q uv
	$(BIN)/uv venv -q --clear --seed --python $(OLDEST_PYTHON) .venv-oldest
	$(BIN)/uv pip install -q --python .venv-oldest/bin/python --resolution lowest-direct -e '.[dev]'
	.venv-oldest/bin/python --version
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(PYTEST)

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-oldest build dist *.egg-info
