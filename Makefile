# make demo    set-up, then the main job on real text (about 5 minutes on 2 quiet cores after set-up)
# make test    set-up, then all tests
# make test-system   SLURM, ssh, MPI, the sandbox, Coq and a browser for real; installs Debian's packages where it may
# make stale   the tables of the docs whose code has changed since they were made
# make check   format, types and floors only
# make docs    the documentation as a site in site/; fails on a dead link

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: stale install demo test test-system check format docs clean

install: $(STAMP)

$(STAMP): setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("megarc needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ...") if not (3, 11) <= sys.version_info < (3, 14) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on --constraint constraints.txt --editable '.[dev,tokenizers,parquet,fast,completion,docs]'
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python launch/demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Files are compared with what Megatron's own reader says; its package alone, without what it depends on.
$(VENV)/.peer: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/peer megatron-core==0.16.1 \
	    || echo "megatron-core 0.16.1 cannot be had here (it wants Python 3.11): its tests will be skipped"
	touch $@

test: export MEGARC_PEER_PATH = $(CURDIR)/$(VENV)/peer
# Two files at once: many tests start ranks of their own, so more would only crowd two cores.
# Compiled once: where PYTHONDONTWRITEBYTECODE is set, every process of the tests would compile the package again.
test: check $(VENV)/.peer
	$(BIN)/python -m compileall -q megarc
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cpu

# Two files at once here too: what waits for SLURM or a dead link leaves the cores to the other.
test-system: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mpi,s3]' 'moto[server]>=5.2'
	tests/system/install.sh
	$(BIN)/python -m compileall -q megarc
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -rs -o addopts= -q --import-mode=importlib -n 2 --dist loadfile --no-loadscope-reorder --timeout=300 tests/system tests/data_tools/test_launchers.py tests/interpreter/test_probes.py tests/interpreter/test_languages.py tests/report/test_run_page.py

docs: install
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

stale: install
	$(BIN)/python benchmarks/stale.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo runs build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
