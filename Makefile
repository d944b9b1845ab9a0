# make serve   build everything and serve SmolLM2-135M on 127.0.0.1:8080       (ARGS="--model x.gguf --port 9000")
# make test    linters, type checks, tests       (ARGS="-k sampling -x"; without whole runs: ARGS="-m 'not e2e'")
# make bench   compare speed with llama.cpp's server                           (ARGS="--model x.gguf")
# make build, lint, clean;  PYTHON=python3.12 selects the interpreter, VENV=… the virtual environment.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: serve test lint bench build clean FORCE

VENV ?= .venv
RUN := $(VENV)/bin/python

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
    "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && \
    echo "$$p" && break; done)
endif

# Python files are used from the checkout, so only changes to these need a reinstallation.
SOURCES := pyproject.toml setup.py Makefile $(wildcard ggml/*.py ggml/*.json ggml/*.cmake ggml/*.txt ggml/*.h) \
    $(shell find engine -name '*.pyx' -o -name '*.pxd' -o -path 'engine/graph/kernels/*') \
    $(shell find ggml/clblast -type f)

# One line of output for pip: package names as they are collected, and errors.
define pip
"$(RUN)" -m pip install --disable-pip-version-check --progress-bar off --log "$(VENV)/pip.log" $(1) 2>&1 | \
    awk '/^Collecting / {sub(/[^A-Za-z0-9_.-].*/, "", $$2); printf " %s", $$2; fflush()} /^Installing collected/ {printf " …"; fflush()} \
        /^ *(ERROR|error)/ {print "\n" $$0; fflush()} END {print " done"}'
endef

# On a terminal the server gets its own process group, so that Ctrl-C reaches the server only: it drains its
# streams and exits 0, whereas make would report an interrupt.
define foreground
import os, signal, sys
if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
endef
export foreground

# The default model is downloaded while ggml compiles; what goes wrong is reported by `ggserve serve`.
NAMES_A_MODEL := $(filter-out -%,$(firstword $(ARGS)))$(filter -m% --model% -hf% --hf% --config% %.gguf,$(ARGS))\
    $(GGSERVE_MODEL)$(GGSERVE_CONFIG)
serve: meanwhile := $(if $(strip $(NAMES_A_MODEL)),,"$(RUN)" -m server.models 2> "$(VENV)/model.log" &)
serve: $(VENV)/installed
	@exec "$(RUN)" -c "$$foreground" "$(VENV)/bin/ggserve" serve $(ARGS)

build: $(VENV)/installed

# Each process of a run compiles what it imports unless one may keep it for the next.
test: lint
	@echo "pytest"
	@PYTHONDONTWRITEBYTECODE= "$(RUN)" -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)
	@case ",$${GGSERVE_BACKENDS-}," in *,clblast,*) \
	    echo "pytest tests/backends"; GGSERVE_CLBLAST_CPU=1 "$(RUN)" -m pytest tests/backends $(ARGS);; esac

lint: $(VENV)/installed $(VENV)/dev-requires
	@echo "ruff check"
	@"$(RUN)" -m ruff check
	@echo "mypy"
	@"$(RUN)" -m mypy & pid=$$!; \
	    "$(RUN)" -m mypy --platform win32 --cache-dir .mypy_cache/win32 && status=0 || status=$$?; \
	    wait $$pid && exit $$status
	@echo "cython-lint"
	@PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint engine

bench: $(VENV)/installed $(VENV)/bench-requires
	@"$(RUN)" -m bench $(ARGS)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found; install it (Debian, Ubuntu:" \
	    "apt install python3-venv python3-dev) or set its path: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" ggml/build.py --check
	@echo "creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv "$(VENV)"

# Rewritten only if a variable that affects compilation changes.
$(VENV)/choices: FORCE | $(VENV)/bin/python
	@echo "$${GGSERVE_BACKENDS-} $${GGSERVE_NATIVE-} $${GGML_SOURCE_DIR-} $${CXX-} $${CXXFLAGS-}" > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Installs the requirements of a table of pyproject.toml: build-requires, dev-requires, bench-requires.
$(VENV)/%-requires: pyproject.toml | $(VENV)/bin/python
	@"$(RUN)" -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb")); print(*({"build": \
	    p["dependency-groups"]["build"]} | p["project"]["optional-dependencies"])[sys.argv[1]], sep="\n")' $* > $@.txt
	@printf 'installing packages to $*:'
	@$(call pip,-r $@.txt)
	@touch $@

# ggml and the extensions are built before pip runs, because pip would hide their progress.
$(VENV)/installed: $(SOURCES) $(VENV)/choices $(VENV)/build-requires
	@$(meanwhile)
	@"$(RUN)" ggml/build.py > /dev/null
	@"$(RUN)" setup.py build_ext --inplace 2>&1 | tee "$(VENV)/build.log" | \
	    awk '/ Cythonizing / {print "  translating " $$NF; fflush()} /^building .* extension/ {print "  compiling " $$2; fflush()}' \
	    || { grep -v '^  File ' "$(VENV)/build.log" | tail -n 40 >&2; exit 1; }
	@printf 'installing ggserve:'
	@$(call pip,--no-build-isolation --editable .)
	@touch $@

clean:
	rm -rf "$(VENV)" build dist *.egg-info engine/lib .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find engine -name '*.so' -delete
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
