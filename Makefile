# Everything that one does with this repository. `make` lists the targets. Python 3.11 or 3.12 is needed.

# The first interpreter that is new enough, not too new, and can make environments; PYTHON=... overrides it.
SUPPORTED := import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	if "$$p" -c '$(SUPPORTED)' >/dev/null 2>&1; then echo "$$p"; break; fi; done)

# Stages say `python`: it must be the environment's, whether or not somebody activated it.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help install repro test test-llamafactory check bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' Makefile

install: .venv/.installed ## make .venv with the pinned packages and this one (does nothing when done)

# An environment that is there keeps its interpreter; a new lock brings its packages up to date.
.venv/.installed: requirements.lock pyproject.toml
	@if [ ! -x .venv/bin/python ] && ! "$(PYTHON)" -c '$(SUPPORTED)' >/dev/null 2>&1; then \
		echo "make install: needs Python 3.11 or 3.12 with venv$(if $(PYTHON),; \"$(PYTHON)\" is not it)." >&2; \
		echo "Install one, or name one that is not found by itself: make install PYTHON=..." >&2; exit 2; fi
	@if [ -x .venv/bin/python ] && ! .venv/bin/python -c '$(SUPPORTED)'; then \
		echo "make install: .venv is of another Python than 3.11 or 3.12; remove .venv and try again." >&2; exit 2; fi
	@[ -x .venv/bin/python ] || "$(PYTHON)" -m venv .venv
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

repro: install ## run the pipeline, then print the acceptance table (also when a stage failed)
	@python -m dvc repro; pipeline=$$?; \
	echo; echo "Acceptance:"; qwenlab accept; gate=$$?; \
	if [ -f report/index.html ]; then echo "Report: report/index.html"; else echo "Report: not written yet"; fi; \
	if [ $$pipeline -ne 0 ]; then exit $$pipeline; fi; exit $$gate

test: install ## run the tests on two processes
	python -m pytest -n 2

test-llamafactory: .venv-llamafactory/.installed ## run the tests of the LLaMA-Factory plugin, in an environment of their own
	.venv-llamafactory/bin/python -m pytest tests_llamafactory

# Torch and CUDA, most of it, are links to those of .venv. They lie on the path, not in site-packages: there, pip would
# follow the links when it removes a package.
.venv-llamafactory/.installed: requirements-llamafactory.txt pyproject.toml .venv/.installed
	@[ -x .venv-llamafactory/bin/python ] || .venv/bin/python -m venv .venv-llamafactory
	@rm -rf .venv-llamafactory/torch && mkdir .venv-llamafactory/torch
	@find "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" -maxdepth 1 \
		'(' -name 'torch*' -o -name 'functorch*' -o -name 'triton*' -o -name 'nvidia*' -o -name 'cuda*' ')' \
		-exec ln -s '{}' .venv-llamafactory/torch/ ';'
	@echo "$(CURDIR)/.venv-llamafactory/torch" > \
		"$$(.venv-llamafactory/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth"
	.venv-llamafactory/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement requirements-llamafactory.txt
	.venv-llamafactory/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch $@

check: install ## formatting, lint, types
	ruff format --check .
	ruff check .
	mypy src stages

bench: install ## measure against the alternatives, side by side
	@for file in benchmarks/[a-z]*.py; do echo "$$file"; python "$$file" || exit; done

clean: ## remove caches; data, metrics and the environment stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist src/*.egg-info
	find . -path ./.venv -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
