# `make quickstart` and `make test` do all set-up themselves; both are quick the second time.

PYTHON ?= python3
VENV ?= .venv
bin := $(VENV)/bin
installed := $(VENV)/.installed

.PHONY: help install quickstart quickstart-compare train-real test check bench clean

help:            ## what there is to make
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/  make \1\t\2/p;s/^\([a-z-]*\): *## \(.*\)/  make \1\t\2/p' Makefile | expand -t 28

install: $(installed)  ## the environment alone, in .venv (.venv/bin/losia)

$(installed): pyproject.toml constraints.txt
	test -x "$(bin)/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(bin)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[baselines,plots,generate,dev]"
	touch "$(installed)"

quickstart: $(installed)  ## teach a real small model a skill, and measure it (about 6 minutes)
	"$(bin)/python" -m losia_cli quickstart

quickstart-compare: $(installed)  ## the quickstart by five methods, each at up to three rates (hours)
	"$(bin)/python" -m losia_cli quickstart --compare

train-real: $(installed)  ## SmolLM2-135M on GSM8K by three methods: loss curves (an hour)
	"$(bin)/python" scripts/train_real.py

test: $(installed)  ## the whole test suite
	"$(bin)/python" -m pytest

check: $(installed)  ## lint, format and types
	"$(bin)/python" -m ruff check .
	"$(bin)/python" -m ruff format --check .
	"$(bin)/python" -m mypy

bench: $(installed)  ## seconds and bytes of a step, by method
	"$(bin)/python" -m losia_cli bench step --model tiny-1024
	"$(bin)/python" -m losia_cli bench memory

clean:           ## remove the environment and all caches
	rm -rf "$(VENV)" .pytest_cache .ruff_cache .mypy_cache .hypothesis
