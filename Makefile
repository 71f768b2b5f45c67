# `make quickstart` and `make test` do all set-up themselves; both are quick the second time.

PYTHON ?= python3
VENV ?= .venv
bin := $(VENV)/bin
installed := $(VENV)/.installed

# The paper's tables that are made of trained models; `make reproduce-table1-mini` and so on run the
# same plans with tiny models.
tables := table1 table2 table3 table4 table5 table10 table11 table12 peft-suite
# Those that are measured without training a model; Figure 5 is Table 15's plot.
benchmarks := table14 table15 figure11 figure12

.PHONY: help install quickstart quickstart-compare train-real test check bench clean compare reproduce-all \
	$(tables:%=reproduce-%) $(tables:%=reproduce-%-mini) $(benchmarks:%=reproduce-%)

help:            ## what there is to make
	@sed -n 's/^\([a-z0-9-]*\): .*## \(.*\)/  make \1\t\2/p;s/^\([a-z0-9-]*\): *## \(.*\)/  make \1\t\2/p' Makefile | expand -t 30

install: $(installed)  ## the environment alone, in .venv (.venv/bin/losia)

$(installed): pyproject.toml constraints.txt
	test -x "$(bin)/python" || "$(PYTHON)" -m venv "$(VENV)"
	"$(bin)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e ".[baselines,plots,generate,dev]"
	touch "$(installed)"

quickstart: $(installed)  ## teach a real small model a skill, and measure it (about 6 minutes)
	"$(bin)/python" -m losia_cli quickstart

quickstart-compare: $(installed)  ## the quickstart by five methods, each at up to three rates (two hours)
	"$(bin)/python" -m losia_cli quickstart --compare

train-real: $(installed)  ## SmolLM2-135M on GSM8K by three methods: loss curves (DATA=FILE: own copy)
	"$(bin)/python" scripts/train_real.py $(if $(DATA),--data "$(DATA)")

reproduce-table1: ## the paper's Table 1 on one 80 GB GPU; likewise 2 3 4 5 10 11 12 and peft-suite
reproduce-table1-mini: ## the same plan with tiny models, without a GPU; likewise the others

$(tables:%=reproduce-%): reproduce-%: $(installed)
	"$(bin)/python" -m losia_cli reproduce $* --allow-code

$(tables:%=reproduce-%-mini): reproduce-%-mini: $(installed)
	"$(bin)/python" -m losia_cli reproduce $* --allow-code --miniature

compare: $(installed)  ## SmolLM2-135M taught ARC-E and GSM8K by ten methods at three rates (days on a CPU)
	"$(bin)/python" -m losia_cli reproduce compare

reproduce-all:   ## all of them, the tables that are benchmarks, and the figures (months of one GPU)
	failed=0; for table in $(tables) $(benchmarks); do \
		$(MAKE) reproduce-$$table || failed=1; done; exit $$failed

reproduce-table14: $(installed)  ## trained parameters by size and, on a GPU, their memory
	mkdir -p runs/reproduce
	"$(bin)/python" -m losia_cli bench sizes --json runs/reproduce/table14.json

reproduce-table15: $(installed)  ## latency and memory by method on one 80 GB GPU, with a plot
	mkdir -p runs/reproduce
	"$(bin)/python" -m losia_cli bench step --model llama2-7b --checkpointing \
		--methods lora,dora,galore,losia,losia-pro --json runs/reproduce/table15-with.json
	"$(bin)/python" -m losia_cli bench step --model llama2-7b \
		--methods lora,losia,losia-pro --json runs/reproduce/table15-without.json
	"$(bin)/python" -m losia_cli bench latency runs/reproduce/table15-with.json \
		runs/reproduce/table15-without.json --plot runs/reproduce/table15.png

reproduce-figure11: $(installed)  ## latency and memory by size of each method, with checkpointing
reproduce-figure12: $(installed)  ## the same without checkpointing
reproduce-figure11 reproduce-figure12: reproduce-%:
	mkdir -p runs/reproduce
	"$(bin)/python" -m losia_cli bench sizes --methods lora,dora,losia,losia-pro \
		--json runs/reproduce/$*.json $(if $(filter %12,$*),--no-checkpointing)
	"$(bin)/python" -m losia_cli bench latency runs/reproduce/$*.json --plot runs/reproduce/$*.png

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
