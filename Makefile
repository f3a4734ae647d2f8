# What a person types. `make demo` and `make test` set up what they need and do nothing twice.
PYTHON ?= python3
PROFILE ?= paper
WORKSPACE ?= workspace
BIN := .venv/bin
export DO_NOT_TRACK := 1

CHROMIUM ?= chromium

# What the Python of a lent card lacks, or has in a version too old to train with; then what asks the hub, and pytest.
GPU_PACKAGES := transformers|tokenizers|safetensors|peft|torchao|soundfile|cffi|pycparser|soxr|pydantic|pydantic_core|annotated-types|typing-inspection|requests|urllib3|idna|certifi|charset-normalizer|pytest|pluggy|iniconfig|hypothesis|sortedcontainers|Pygments
GPU_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64

.PHONY: demo test test-long test-browser check format serve gpu-wheels clean

# FAMILY=qwen2_5_omni or qwen3_omni takes a small model of that family.
demo: .venv/ready
	$(BIN)/python -m flows.full_pipeline --profile demo --workspace $(WORKSPACE) $(if $(FAMILY),--set experiment=demo-$(FAMILY) --set train.warm-start.model=random:tiny-$(FAMILY))
	@echo 'for every other command: . .venv/bin/activate (once a terminal; README.md, "What next")'

test: .venv/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# Whole runs; the modules with the most tests first, so that neither worker ends long before the other.
test-long: .venv/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'long and not gpu and not network'

# Needs Node 20; Chromium is installed where the system's packages can be (CHROMIUM=PATH names another).
test-browser: .venv/ready
	command -v $(CHROMIUM) >/dev/null || { apt-get update -qq && apt-get install -qq -y chromium >/dev/null; }
	npm --prefix tests/browser ci --silent --no-audit --no-fund
	CHROMIUM=$$(command -v $(CHROMIUM)) node --test tests/browser/report.test.mjs

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: .venv/ready
	$(BIN)/python -m flows.serve --profile $(PROFILE) --workspace $(WORKSPACE) $(if $(PORT),--port $(PORT)) $(if $(REPORT_PORT),--report-port $(REPORT_PORT))

# For `python -m benchmarks.gpu` on a machine with a GPU, Python 3.12 and no network.
gpu-wheels: constraints.txt
	rm -rf $@ && mkdir $@
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp $(addprefix --platform ,$(GPU_PLATFORMS)) --dest $@ $$(grep -E '^($(GPU_PACKAGES))==' constraints.txt)
	@du -sh $@

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version); name another one: make PYTHON=python3.12 demo"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache
