# `make build` once, then the others. Everything goes into the virtual environment that is active.
PYTHON ?= python

.PHONY: build test lint bench clean

build:
	$(PYTHON) -m pip install '.[dev]'

test:
	$(PYTHON) -m pytest

lint:
	ruff check
	mypy
	cython-lint src/kollama/_core
	$(PYTHON) -m mypy.stubtest kollama --mypy-config-file pyproject.toml # compares the stubs with what `make build` installed

bench:
	$(PYTHON) benchmarks/generate.py

clean:
	rm -rf build dist wheels/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
