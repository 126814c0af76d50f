# Everything a newcomer needs: `make demo`, `make test`. Everything a contributor needs: `make check`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test soak check format docs dashboards protocol clean

demo: $(INSTALLED)
	$(BIN)/homeostat demo $(ARGS)

# A process a core, up to four, each with files of its own: files share fixtures that are dear.
test: $(INSTALLED)
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# An hour of load on the model server, with another version promoted every minute.
soak: $(INSTALLED)
	$(BIN)/python -m bench soak $(ARGS)

# Formatting, lint, types, who may import whom, generated files, and that nothing is out of date.
check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -P -m dashboards build --check

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)
	$(BIN)/python -P -m homeostat.reference_docs docs

# Messages of the Open Inference Protocol over gRPC, from their .proto file.
protocol: $(INSTALLED)
	$(BIN)/python -P -m grpc_tools.protoc -I. --python_out=. --pyi_out=. serving/open_inference/open_inference.proto

dashboards: $(INSTALLED)
	$(BIN)/python -P -m dashboards build

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Homeostat needs Python 3.11 or newer; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@echo "Installing what is pinned in constraints.txt into $(VENV); the first time takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
