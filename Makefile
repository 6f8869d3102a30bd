# The commands of this project; `make` alone lists them, docs/development.md tells more.

# The interpreter to develop with, 3.10 or newer.
PYTHON ?= python3
# Where the programs go on a system: make install DESTDIR=/tmp/root PREFIX=/usr
PREFIX ?= /usr

VENV := .venv
BIN := $(VENV)/bin
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ovirt_imageio/version.py)
NAME := ovirt-imageio-$(VERSION)

export PYTHON
export PIP_DISABLE_PIP_VERSION_CHECK := 1
.DEFAULT_GOAL := help
.SHELLFLAGS := -euo pipefail -c
SHELL := /bin/bash

.PHONY: help
help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 18

## Work

.PHONY: check
check: system-check $(VENV)/ready storage  ## everything that must be good before a commit: format, lint, types, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest | tee .cache/pytest.log
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	test/tools/pythons "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
	@echo "The whole suite:"
	@tail -n 1 .cache/pytest.log

.PHONY: format
format: $(VENV)/ready  ## format the code, and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: run
run: system-run $(VENV)/ready  ## serve demo.qcow2 over HTTPS; Ctrl-C stops it
	exec $(BIN)/ovirt-imageio serve demo.qcow2 --size 10g

.PHONY: bench
bench: system-bench $(VENV)/ready  ## measure; ONLY=name picks some
	$(BIN)/python test/bench/run.py $(ONLY)

.PHONY: storage
storage: $(VENV)/ready  ## make the loop devices and file systems that tests use
	@$(BIN)/python test/real/storage.py create

.PHONY: clean-storage
clean-storage:  ## delete them
	$(BIN)/python test/real/storage.py delete

.PHONY: clean
clean:  ## delete everything that was built, but for the storage of tests
	rm -rf .venv* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What the system must have; a quick look when nothing is missing.
.PHONY: system-check system-run system-bench system-rpm
system-check system-run system-bench system-rpm: system-%:
	@test/tools/packages $*

# The environment for development, made again when what it is made of changes.
$(VENV)/ready: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test,check]'
	mkdir -p .cache
	touch $@
