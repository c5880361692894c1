# Everything a developer or CI does, by name. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# vLLM's pins bind nothing else: it has an environment of its own.
VLLM_VENV ?= .venv-vllm
# Further arguments of pip, for example to choose another build of torch.
PIP_EXTRA_ARGS ?=
# Further arguments of uv, for vLLM's environment: where the CPU build of torch is, for example
# (uv does not read pip's settings; pip's folder of wheels is passed on, by variable or by file).
UV_EXTRA_ARGS ?=
# Further arguments of pytest: make test-unit ARGS='-k planner'
ARGS ?=
# Four test processes for two cores, as they often wait; whole files, so that what a file starts is
# started once.
PARALLEL ?= --numprocesses 4 --dist loadfile --no-loadscope-reorder
# The unit tests hardly ever wait, and one process more would only collect them once more. Loading a
# plugin that none of them uses takes a second in each.
PARALLEL_UNIT ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder -p no:schemathesis
# Under every compiler and processor that can be had; zig's first link for Windows alone takes minutes.
NATIVE := tests/integration/native
# The demonstrations' model, a real one; the model in the box: make demo MODEL=
MODEL ?= smollm2-135m
# The trace for `make bench`: the README's is downloaded when none is named.
TRACE ?=
BENCH_TRACE := results/AzureLLMInferenceTrace_conv.csv
IMAGE ?= server
# For `make image-test`.
IMAGES ?= server device

BIN := $(VENV)/bin
DEV_STAMP := $(VENV)/.installed-dev
RUN_STAMP := $(VENV)/.installed-bench
DOCS_STAMP := $(VENV)/.installed-docs
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STAMP := $(VLLM_VENV)/.installed
# Beside its sources; its name differs between systems, so a stamp stands for it.
KERNEL_STAMP := $(VENV)/.built-kernels
KERNEL_SOURCES := $(wildcard core/pd_core/integer/native/*.[ch])
WHEELS := x86_64-linux aarch64-linux aarch64-macos x86_64-windows
GUIDELLM_STAMP := .venv-guidellm/.installed
AIPERF_STAMP := .venv-aiperf/.installed
SDK_STAMP := .venv-sdk/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_EXTRA_ARGS)

.PHONY: help install docs demo demo-page test test-fast test-heavy test-arm64 test-unit test-integration screenshots format lint typecheck
.PHONY: kernels wheels dist proto proto-check bench chaos check clean image image-test test-vllm vllm-env test-clients test-sdks clients-env

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(DEV_STAMP) $(KERNEL_STAMP) ## Create .venv with everything for development (quick when nothing changed)

kernels: $(DEV_STAMP) ## Build the native kernels again, and say so when it fails
	@$(BIN)/python -m pd_core.integer.build
	@touch $(KERNEL_STAMP)

demo: $(RUN_STAMP) ## Answer a question about a page in three modes, with a cloud and a throttled device
	@$(demo_model); $(BIN)/pd-bench demo $${model:+--model "$$model"}

demo-page: $(RUN_STAMP) ## Open a page on a cloud and a throttled device; Ctrl-C stops both
	@$(demo_model); $(BIN)/pd-device serve --demo $${model:+--model "$$model"}

# The types are checked beside the tests, for one core of two is idle meanwhile.
test: install ## Lint, typecheck, stubs, all tests but the heavy ones
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint proto-check
	@$(MAKE) --no-print-directory typecheck & types=$$!; \
	$(BIN)/pytest $(PARALLEL) --timeout 120 --durations 25 -m 'not heavy' --ignore=$(NATIVE) $(ARGS) || failed=1; \
	wait $$types || failed=1; exit $${failed:-0}

test-heavy: install ## The tests marked heavy: the page in a Chromium, crowds, replays, trainings; minutes
	@$(BIN)/pytest $(PARALLEL) --timeout 200 --durations 25 -m heavy --ignore=$(NATIVE) $(ARGS)

# Where qemu or zig is missing the tests that need it are skipped, and say so.
test-arm64: install ## The native kernels under every compiler and processor, arm64 by qemu; minutes
	@$(BIN)/pytest --timeout 600 -rs $(NATIVE) $(ARGS)

test-fast: install ## For the inner loop: ruff and the unit tests but the slow ones; 80 seconds
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pytest $(PARALLEL_UNIT) --timeout 120 -m 'not slow and not heavy' tests/unit $(ARGS)

test-unit: install ## The unit tests: no sockets
	@$(BIN)/pytest $(PARALLEL_UNIT) --timeout 120 tests/unit $(ARGS)

test-integration: install ## The integration tests: sockets and processes
	@$(BIN)/pytest $(PARALLEL) --timeout 120 --durations 25 tests/integration $(ARGS)

screenshots: install ## Take the documentation's pictures of the page, in a real Chromium
	@PD_SCREENSHOTS=docs/images $(BIN)/pytest --timeout 900 tests/integration/page/test_demo_page.py

# Not with --quiet: it would also hide the warnings that end a strict build.
docs: $(DOCS_STAMP) ## Build the documentation into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "built site/; read it: $(BIN)/python -m http.server --directory site 8000"

format: install ## Format and sort imports in place
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: install ## ruff, import rules, the wire's style, Dockerfiles, YAML
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@cd proto && $(abspath $(BIN))/buf lint
	@$(BIN)/hadolint deploy/*.Dockerfile
	@$(BIN)/yamllint --strict .

typecheck: install ## mypy --strict
	@$(BIN)/mypy

proto: install ## Regenerate the committed stubs from the .proto files
	@$(call generate,proto)

proto-check: install ## Fail when the committed stubs are not what the .proto files give
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call generate,$$fresh) \
	&& for file in $$(cd "$$fresh" && find . -type f); do \
		cmp "$$fresh/$$file" "proto/$$file" \
		|| { echo "the committed stubs are stale; mend: make proto" >&2; exit 1; }; \
	done

chaos: $(RUN_STAMP) ## 10,000 answers beside faults on a virtual clock, 600 through real processes; 6 minutes
	@$(BIN)/pd-bench chaos --requests 10000
	@$(BIN)/pd-bench chaos --requests 600 --fidelity real

# The options are those of the README's table; random-tiny has room for the trace's prompts.
bench: $(RUN_STAMP) ## The README's table and what a token costs: 8 minutes; TRACE=FILE: no download
	@echo "make bench takes 8 minutes on two quiet cores: 1 for what the session adds to a token and"
	@echo "how calm the event loop stays, 7 for the README's table (3 schemes, 3 passes each)"
	@mkdir -p results
	@if [ -z "$(TRACE)" ]; then \
		$(BIN)/pd-bench trace fetch azure-2023-conv --out "$(BENCH_TRACE)" \
		|| { echo "make bench needs Azure's conversation trace of 2023 for the README's table;" \
			"download it elsewhere, then: make bench TRACE=FILE" >&2; exit 1; }; fi
	@$(BIN)/pd-bench overhead
	@$(BIN)/pd-bench ticker --model random-tiny
	@$(BIN)/pd-bench replay "$(or $(TRACE),$(BENCH_TRACE))" --limit 30 --model random-tiny \
		--fidelity fleet --device-profile slow --pace 0.1 --max-output-tokens 256 --repeat 3 \
		--json results/bench.json
	@echo "the README's table, as measured here (all figures: results/bench.json):"
	@$(BIN)/pd-bench report results/bench.json --markdown

vllm-env: $(VLLM_STAMP) ## Create .venv-vllm: vLLM on a CPU with the server and the device

# One test process, engine after engine; starting vLLM takes most of the time.
test-vllm: vllm-env ## The tests that need vLLM, in its own environment; minutes
	@$(VLLM_BIN)/python -m pytest -W ignore --timeout 900 tests/vllm $(ARGS)

clients-env: install vllm-env $(GUIDELLM_STAMP) $(AIPERF_STAMP) $(SDK_STAMP) ## Create the environments of test-clients

# Load generators ask for what another excludes. Figures are printed: run it on a quiet machine.
test-clients: clients-env ## SDKs, agents and load generators against pd-device serve
	@$(pull_model)
	@$(BIN)/pytest -s --timeout 290 tests/clients $(ARGS)

test-sdks: install $(SDK_STAMP) ## Of test-clients only the SDKs and agents, and their table; minutes
	@$(pull_model)
	@$(BIN)/pytest -s --timeout 290 tests/clients/test_sdks.py $(ARGS)

check: test ## The same as test: run it before you push

# pip gets zig into the environment of each build.
wheels: $(RUN_STAMP) ## Build the wheels for Linux, macOS and Windows into dist/, by zig
	@for target in $(WHEELS); do \
		PD_KERNEL_TARGET=$$target $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
			$(PIP_EXTRA_ARGS) --no-deps --wheel-dir dist .; done
	@ls -l dist

image: ## Build a container image without a daemon: make image IMAGE=server|device|bench|vllm
	@deploy/build-with-buildah.sh $(IMAGE)

# As root, with buildah; the settings are those of deploy/build-with-buildah.sh.
image-test: install ## Build the images without a daemon, start them for real, check all of deploy/; minutes
	@$(BIN)/pytest --timeout 200 tests/integration/deploy $(ARGS)
	@for image in $(IMAGES); do deploy/build-with-buildah.sh $$image; done
	@deploy/check-image.sh

dist: $(DEV_STAMP) ## A release into dist/: sources and wheels; PD_REPOSITORY_URL=https://... names its home
	@rm -rf dist
	@$(BIN)/python -m hatchling build --target sdist --directory dist
	@$(MAKE) --no-print-directory wheels

clean: ## Remove .venv, .venv-vllm, caches and build output
	@rm -rf $(VENV) $(VLLM_VENV) .venv-guidellm .venv-aiperf .venv-sdk dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@rm -rf .hypothesis .coverage htmlcov site
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A real model by its short name is pulled; where it cannot be had, the one in the box is taken.
define demo_model
model="$(MODEL)"; case "$$model" in ''|*/*|random-tiny|skipv1-python-5m) ;; \
	*) $(BIN)/pd-device models pull "$$model" \
	|| { echo "$$model cannot be had here, so the model in the box answers" >&2; model=; };; esac
endef

define pull_model
$(BIN)/pd-device models pull smollm2-135m \
	|| echo "smollm2-135m cannot be had here, so the model in the box answers" >&2
endef

# The plugins come from the environment, so the stubs depend on what pyproject.toml pins alone.
define generate
PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=$(1) \
	--grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) \
	$$(find proto/pd_proto -name '*.proto' | sort)
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "P/D-Device needs Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV)

# pip runs again only when pyproject.toml is newer than the stamp. Development includes running.
$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing what development needs into $(VENV); torch is large, this takes a minute"
	@PD_KERNEL=off $(PIP_INSTALL) --editable '.[dev]'
	@touch $(RUN_STAMP) $@

# Not by pip, which would say nothing of it; there is zig now where the machine has no compiler.
$(KERNEL_STAMP): $(KERNEL_SOURCES) | $(DEV_STAMP)
	@$(BIN)/python -m pd_core.integer.build || echo "without native kernels torch computes, slower"
	@touch $@

$(RUN_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing what running needs into $(VENV); torch is large, this takes a minute"
	@$(PIP_INSTALL) --editable '.[bench]'
	@touch $@

$(DOCS_STAMP): pyproject.toml | $(BIN)/python
	@$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

.venv-%/.installed: tests/clients/requirements-%.txt
	@echo "installing $* into .venv-$*; it is large, this takes a minute or more"
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_EXTRA_ARGS) \
		--requirement $<
	@touch $@

$(VLLM_STAMP): pyproject.toml deploy/vllm/requirements.txt deploy/vllm/overrides.txt
	@echo "installing vLLM into $(VLLM_VENV); it is large, this takes a minute or more"
	@$(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@links=$$($(VLLM_BIN)/python -m pip config get global.find-links 2>/dev/null || true) \
	&& UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$links}}" \
		$(VLLM_BIN)/uv pip install --quiet \
		--python $(VLLM_BIN)/python --override deploy/vllm/overrides.txt $(UV_EXTRA_ARGS) \
		--requirements deploy/vllm/requirements.txt --editable '.[server,device]' \
	|| { echo "vLLM's environment could not be built. uv needs a package index, and the CPU build" \
		"of torch ($$(grep '^torch==' deploy/vllm/overrides.txt)): give a folder that has its" \
		"wheel (UV_FIND_LINKS=...), or an index (UV_EXTRA_ARGS='--extra-index-url ...')" >&2; \
		exit 1; }
	@touch $@
