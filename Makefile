# `make demo` and `make test` work in a fresh clone: they make .venv and install what is needed.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := -m pytest -q -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# The oldest and the newest Python, where they are installed (pyenv's too); else what $(PYTHON) is.
find_python = $(firstword $(foreach p,$(1),$(shell $(p) -c 'import sys; print(sys.executable)' \
    2> /dev/null)) $(PYTHON))
OLDEST_PYTHON ?= $(call find_python,python3.10 $(lastword $(sort $(wildcard ~/.pyenv/versions/3.10.*/bin/python))))
NEWEST_PYTHON ?= $(call find_python,python3.13 $(lastword $(sort $(wildcard ~/.pyenv/versions/3.13.*/bin/python))))

.PHONY: demo docs test test-slow test-oldest test-newest lint format clean

demo: .venv/.ready
	$(BIN)/python examples/demo.py --output demo.jpg

docs: .venv/.ready
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m "not slow"

# Programs, documented commands, the wheel, the docs site, browsers and clusters.
test-slow: .venv/.ready
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m slow --dist load

# All tests on the oldest Python, with the lowest versions that pyproject.toml allows, and on
# the newest Python. Each says which Python it is.
test-oldest: RESOLUTION := lowest-direct
test-oldest test-newest: .venv/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -q uv
	$(BIN)/uv venv -q --clear --seed .venv-$@ \
	    --python $(if $(RESOLUTION),$(OLDEST_PYTHON),$(NEWEST_PYTHON))
	$(BIN)/uv pip install -q --python .venv-$@/bin/python -e '.[dev]' \
	    $(if $(RESOLUTION),--resolution $(RESOLUTION))
	.venv-$@/bin/python --version
	OMP_NUM_THREADS=1 .venv-$@/bin/python $(PYTEST)

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
	rm -rf .venv .venv-test-* docs/_build build dist *.egg-info
