# One word for each task; CI runs the same words. PYTHON names the interpreter of the virtual environment to use.
PYTHON ?= .venv/bin/python

.PHONY: setup test lint types docs site pictures routes bench faults lock

setup:  ## a virtual environment with the pinned packages and llmkit itself
	python3 -m venv .venv
	.venv/bin/pip install -q -r requirements.lock
	.venv/bin/pip install -q --no-deps -e .

test:  ## the whole suite
	$(PYTHON) -m pytest -n 2

lint:  ## style, and whether the formatter would change anything
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:  ## the package, strictly
	$(PYTHON) -m mypy

docs:  ## write docs/cli.md, docs/reference and the text of --help anew from the program itself
	$(PYTHON) docs/make_cli.py > docs/cli.md
	$(PYTHON) docs/make_reference.py

site:  ## build the site of the documents into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

pictures:  ## make docs/pictures anew from the real program; needs Chromium
	$(PYTHON) docs/make_pictures.py

routes:  ## ask LiteLLM anew what it sends to each provider, some minutes; nothing leaves the machine
	$(PYTHON) -W ignore -m llmkit.providers.routes.learning.make

bench:  ## ratios against plain LiteLLM and others, measured in the same run
	$(PYTHON) benchmarks/start.py
	$(PYTHON) benchmarks/calls.py
	$(PYTHON) benchmarks/sessions.py
	$(PYTHON) benchmarks/ledger.py
	$(PYTHON) benchmarks/usage.py
	$(PYTHON) benchmarks/map.py
	$(PYTHON) benchmarks/map_rivals.py

faults:  ## the long form of the campaigns: many processes, many kills, many calls
	LLMKIT_LONG=1 $(PYTHON) -m pytest -n 2 --timeout 1800 tests/sessions/test_campaign.py tests/money \
		tests/jobs/test_map_campaign.py tests/jobs/test_map_command.py tests/jobs/test_map_join.py \
		tests/jobs/test_map_pace.py tests/jobs/test_map_quota.py tests/serve/test_serve.py tests/serve/test_serve_limits.py \
		tests/test_growth.py tests/cli/test_quick.py tests/providers/routes/test_equal.py
	LLMKIT_ROUTES=off $(PYTHON) -m pytest -n 2 tests/providers/test_wire.py tests/providers/test_transport.py tests/core

lock:  ## pin every dependency anew, with hashes and without an index address
	$(PYTHON) -m uv pip compile pyproject.toml --universal --python-version 3.10 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --upgrade -q -o requirements.lock
	{ echo '# The versions of requirements.lock without their hashes, for `pip install -c`. Made by `make lock`; pip itself stays free.'; \
		sed -nE 's/^([a-z0-9][^ ]*==[^ ]+( ; [^\\]*[^ \\])?) *\\$$/\1/p' requirements.lock | grep -v '^pip=='; } > constraints.txt
	sed -i '1i # Every dependency of every extra, with hashes. Made by `make lock`; installed by the second command of the README.' requirements.lock
