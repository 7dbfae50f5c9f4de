# Few targets, and `make` alone lists them. Everything happens in .venv; nothing is installed outside this folder.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PORT ?= 8080
FUZZ_SECONDS ?= 600
IN := .venv/bin/python
SOURCES := penstock tests scripts bench models examples setup.py

.PHONY: help setup demo test check fix cover docs conformance wall fuzz bench .engine .dev

help: ## this list
	@echo "Penstock: the production LLM serving platform that one engineer can hold in their head."
	@echo
	@grep -E '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
		awk -F'\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo
	@echo "Start with \`make demo\`. Before a commit: \`make test\`."

setup: .dev ## make the environment in .venv, with everything to work on Penstock
	@echo "Ready. The command is .venv/bin/penstock; try .venv/bin/penstock --help"

demo: .engine ## start Penstock with two replicas of a small model on http://127.0.0.1:8080 (PORT=..., DEMO_SECONDS=...)
	@exec $(IN) scripts/demo.py --port $(PORT)

test: .dev ## everything that must hold before a commit: check, every test, the gateway's also compiled
	@$(IN) scripts/tests.py

check: .dev ## the fast half of `make test`: ruff, mypy, import contracts
	@$(IN) scripts/checks.py

fix: .dev ## format the code and repair what can be repaired by itself; write the generated docs anew
	@$(IN) -m ruff check --fix-only -q $(wildcard $(SOURCES))
	@$(IN) -m ruff format $(wildcard $(SOURCES))
	@$(IN) scripts/write_docs.py

cover: .dev ## coverage: every test, which lines none of them runs, per file; a browsable report in .coverage-html
	@$(IN) scripts/tests.py --cover

docs: .dev ## write the generated pages anew (docs/cli.md from --help)
	@$(IN) scripts/write_docs.py

conformance: .dev ## other people's code against Penstock: the SDKs' own tests, a client matrix, schemathesis
	@$(IN) -m pytest tests/conformance tests/clients

wall: .dev ## the fault wall: every way an upstream can break, and what callers are told (docs/faults.md)
	@$(IN) -m penstock.testing.faults

fuzz: .dev ## ten minutes of coverage-guided fuzzing of the wire (FUZZ_SECONDS=...); what it finds is in tests/fuzz/findings
	@$(IN) -c "import atheris" 2>/dev/null || $(IN) -m pip install -q -e '.[fuzz]'
	@$(IN) tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

bench: bench-observe bench-gateway ## what the gateway costs, beside nginx and, after `make bench-peers`, other gateways; and the stage that sees

bench-%: .dev ## one bench: -gateway, -limits, -crash, -engine, -reference, -routing, -cascade, -fidelity, -load-agreement, -observe, -console; bench-peers installs what to compare with
	@$(IN) bench/$(subst -,_,$*).py

.engine .dev:
	@command -v $(PYTHON) >/dev/null || { echo "Penstock needs Python 3.11 or newer, and there is no \`$(PYTHON)\` here." >&2; \
		echo "On Debian and Ubuntu: sudo apt-get install python3 python3-venv; elsewhere: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) scripts/setup.py $(@:.%=%)
