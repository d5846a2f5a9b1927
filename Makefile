# make demo    an environment in .venv, Slipway in it, and the example planned, applied and run
# make test    everything that CI checks: lint, types, tests. Those of the docker runtime use the Docker Engine that answers
#              (DOCKER_HOST or its usual socket), else one of their own: as root, on Debian or Ubuntu. It is gone
#              afterwards; what was downloaded for it stays in ~/.cache/slipway-tests. Where there can be none they are
#              skipped with the reason, and fail where CI is set.
# make check   lint and types alone
# make bench   the figures, side by side with what they are compared with
# make clean   remove what was made here; homes (~/.slipway) are left alone

SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
SLIPWAY := $(VENV)/bin/slipway
# The first Python of 3.11 or newer that really starts (a pyenv shim may stand for a version that isn't chosen).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
QUERY ?= parse command line options

.PHONY: demo test check bench docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-run
	@echo; echo '$$ slipway plan examples/search.py'; $(SLIPWAY) plan examples/search.py
	@echo; echo '$$ slipway apply'; $(SLIPWAY) apply
	@echo; echo '$$ slipway run examples/search.py --query "$(QUERY)"'; \
		$(SLIPWAY) run examples/search.py --query "$(QUERY)"
	@echo; echo 'That was it. Again with another query:  make demo QUERY="compress a file"'
	@echo 'To take it away:  $(SLIPWAY) destroy search --yes --volume stdlib-index; $(SLIPWAY) down'

test: check
	$(PY) -m pytest $(PYTEST)

check: $(VENV)/.stamp-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) scripts/link_packages.py
	$(VENV)/bin/mypy build/ns/slipway scripts examples bench
	cd tests && $(abspath $(VENV))/bin/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache .

bench: $(VENV)/.stamp-dev
	$(PY) -m bench

# What is made from the program itself: docs/guide/cli.md and docs/plan.svg.
docs: $(VENV)/.stamp-dev
	$(PY) scripts/write_cli_page.py
	$(PY) scripts/draw_plan.py

$(VENV)/.stamp-run: pyproject.toml scripts/bootstrap.py
	@test -n '$(PYTHON)' || { echo 'Slipway needs Python 3.11 or newer. On Debian: apt install python3'; exit 1; }
	$(PYTHON) scripts/bootstrap.py $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
