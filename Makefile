# make run    train a relational attention network on real data and show what it learned
# make test   run every test
# Each builds .venv from constraints.txt when it is missing; nothing else is needed than Python 3.10 to
# 3.12, make and a C++17 compiler.

PYTHON ?= python3.11
VENV   := .venv
READY  := $(VENV)/.ready
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard hgat/kernels/cpu/*.cpp hgat/kernels/cpu/*.h)

.PHONY: run test lint clean

run: $(READY)
	$(VENV)/bin/hgat train rgat-movielens

test: $(READY)
	$(VENV)/bin/python -m pytest -q

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(READY): $(SOURCES)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[demo,plot,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) build
