# make run    train a relational attention network on real data and show what it learned
# make test   run every test; make test-quick those that end in two minutes; make test DEVICE=cuda on a GPU, too
# make test-triton   run the GPU kernels in Triton's interpreter, and compile them; fetches Triton (300 MB)
# make lint   check style, format and types
# make bench  compare with DGL and PyTorch Geometric in two minutes
# make docs   build the documentation into build/site, on Python 3.11 or later; a warning or a dead link ends it
# Each builds .venv from constraints.txt when it is missing; nothing else is needed than Python 3.10 to
# 3.12, make and a C++17 compiler.

PYTHON ?= python3.11
VENV   := .venv
READY  := $(VENV)/.ready
DOCS   := $(VENV)/.docs
BENCH  := $(VENV)/.bench
TRITON := $(VENV)/.triton
SOURCES := pyproject.toml constraints.txt hgat/__init__.py CMakeLists.txt $(wildcard hgat/kernels/cpu/*.cpp hgat/kernels/cpu/*.h)

.PHONY: run test test-quick test-triton bench docs lint clean

run: $(READY)
	$(VENV)/bin/hgat train rgat-wind --seeds 1

# Two workers with a thread each: most tests are too small for two threads.
test: $(READY)
	HGAT_TEST_DEVICE=$(DEVICE) OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist worksteal

test-quick: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow"

# The interpreter is chosen when Triton is imported, so what it runs has a process of its own.
test-triton: $(TRITON)
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist worksteal tests/kernels
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q -n 2 --dist worksteal tests/kernels

bench: $(BENCH)
	$(VENV)/bin/python -m benchmarks quick

# The reference reads the sources, and the notebooks run.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m mkdocs build --strict

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m mypy

$(READY): $(SOURCES)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,plot,dev]"
	touch $(READY)

# PyTorch Geometric is only there to be compared with.
$(BENCH): $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $(BENCH)

$(DOCS): $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $(DOCS)

# Builds of PyTorch for CUDA bring Triton; those for the CPU do not, and need it for these tests alone.
$(TRITON): $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt triton
	touch $(TRITON)

clean:
	rm -rf $(VENV) build
