# Everything a developer or CI runs. `make setup` is implied by every target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_HOME := $(VENV)/uv
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup lock fmt check format lint types imports test test-avx2 test-slow test-deploy fuzz test-s3 test-moto \
  test-ceph test-faults soak rehearsal rehearsal-real golden demo bench bench-scale clean

setup: $(STAMP)

# uv is used where it works; otherwise it gets a small environment of its own.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "make: Python 3.11 to 3.13 is needed, $(PYTHON) has another version; run make PYTHON=..." >&2; exit 1; }
	@uv --version >/dev/null 2>&1 || test -x $(UV_HOME)/bin/uv || \
	  { $(PYTHON) -m venv $(UV_HOME) >/dev/null && $(UV_HOME)/bin/pip install -q uv; } || \
	  { echo "make: install uv, or python3-venv (Debian), and try again" >&2; exit 1; }
	@UV=uv; uv --version >/dev/null 2>&1 || UV=$(UV_HOME)/bin/uv; \
	  test -x $(BIN)/python || $$UV venv -q --allow-existing --python $(PYTHON) $(VENV) || exit 1; \
	  $$UV pip sync -q --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock && \
	  $$UV pip install -q --no-deps --python $(BIN)/python -e .
	@touch $@

# The locks name no index: hashes decide what is installed, not where it comes from. The image installs the
# second and the third, which are parts of the first, in two layers.
COMPILE := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url
lock:
	$(COMPILE) --all-extras -o requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock --extra cluster --extra s3 --extra digits --extra timm \
	  -o requirements-runtime.lock pyproject.toml
	printf 'torch\ntorchvision\nsetuptools\n' | \
	  $(COMPILE) -c requirements-runtime.lock -o requirements-torch.lock -

fmt: setup
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: format lint types imports test

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# Two processes at once; each test file stays in one of them.
PARALLEL := -n 2 --dist loadgroup

test: setup
	$(BIN)/pytest -q $(PARALLEL) -m "not slow and not deploy"

# The numbers with AVX2 and without AVX-512, as most laptops compute them.
NUMBERS := evaluation labels models posttrain recover selection squeeze statistics training transforms
test-avx2: setup
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/pytest -q $(PARALLEL) -m "not slow and not cluster" \
	  tests/golden tests/e2e/test_same_bytes.py $(addprefix tests/distill_core/,$(NUMBERS))

test-slow: setup
	$(BIN)/pytest -q $(PARALLEL) -m slow

# A deployment as deploy/prefect describes it: PostgreSQL, Prefect's server, a worker, a Ray cluster.
test-deploy: setup
	deploy/postgres/server.sh install
	$(BIN)/pytest -q -m deploy tests/deployment

# Random configs, command lines, records and datasets: thirty times the examples of `make test`.
fuzz: setup
	DISTILL_FUZZ=30 $(BIN)/pytest -q --timeout 3600 tests/fuzz

# The contract of storage and its faults: against moto, then against a real Ceph gateway on loopback.
S3_TESTS := tests/s3 tests/faults/test_storage.py

test-s3: test-moto test-ceph

test-moto: setup
	DISTILL_TEST_S3=moto $(BIN)/pytest -q $(S3_TESTS)

test-ceph: setup
	deploy/ceph/rgw.sh install
	DISTILL_TEST_S3=ceph $(BIN)/pytest -q $(S3_TESTS)

test-faults: setup
	$(BIN)/pytest -q tests/faults tests/soak

# Half of all attempts killed, half of all requests spoiled; the rehearsal of all 21,841 classes.
soak: setup
	$(BIN)/python -m tests.soak --rate 0.5

rehearsal: setup
	rm -rf out/rehearsal
	$(BIN)/python -m tests.rehearsal --store out/rehearsal

# A million tiny JPEGs in archives of 21,841 classes, in a bucket of Ceph; a kill inside an epoch.
rehearsal-real: setup
	deploy/ceph/rgw.sh install
	$(BIN)/python -m tests.rehearsal.real --server ceph

golden: setup
	$(BIN)/python -m tests.golden.update

demo: setup
	$(BIN)/distill demo

# On a machine that does nothing else: each comparison writes its table to benchmarks/results.
bench: setup
	$(BIN)/python -m benchmarks

bench-scale: setup
	$(BIN)/python -m benchmarks.bench_scale

clean:
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
