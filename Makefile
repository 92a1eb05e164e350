PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slow check docs bench clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,docs,onnx,kornia,lite0,openvino,parquet,search,web]"
	touch $@

demo: setup
	$(BIN)/csametric demo

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 3600

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup
	$(BIN)/python -m bench.attention
	$(BIN)/python -m bench.training
	$(BIN)/python -m bench.patches
	$(BIN)/python -m bench.loading
	$(BIN)/python -m bench.evaluation
	$(BIN)/python -m bench.model
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.explorer

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
