# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv/bin
# Namespaces and BPF need root; without it, ask sudo (and do not leave root's bytecode in the tree).
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo env PYTHONDONTWRITEBYTECODE=1)
# bpftool, which a user's own path leaves out.
export PATH := $(PATH):/usr/sbin:/sbin
CLANG ?= clang
PYTEST_ARGS ?= -n auto
# For each fuzzer. `make fuzz FUZZ_RUNS=100000000` is the long run; it takes hours.
FUZZ_RUNS ?= 200000

C_FILES = $(shell find core drivers bench tests -name '*.[ch]' 2>/dev/null)
C_TESTS = $(patsubst core/tests/%.c,build/c/%,$(wildcard core/tests/test_*.c))
C_FUZZERS = $(patsubst core/tests/%.c,build/c/%,$(wildcard core/tests/fuzz_*.c))
GENERATORS = $(wildcard tools/gen*.py)
TEST_CFLAGS = -std=gnu11 -g -Wall -Wextra -Wno-unused-parameter -Werror -Icore -Idrivers/native \
	-fno-omit-frame-pointer -fno-sanitize-recover=all
# What a test is compiled with, where it is not this. The exhaustive test has 2^33 cases and touches no memory.
TEST_CHECKS = -O1 -fsanitize=address,undefined
build/c/test_csum: TEST_CHECKS = -O2
# Lanes that jump between stacks look like overflows to the address sanitizer.
build/c/test_interleave build/c/test_killed: TEST_CHECKS = -O2 -fsanitize=undefined
build/c/test_concurrent build/c/test_lanes: TEST_CHECKS = -O1 -fsanitize=thread -pthread

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-test build demo test lint format generate test-c fuzz test-python test-asan bench vm-test clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1   \2/p' $(MAKEFILE_LIST)

setup: ## install what is missing; afterwards the command is .venv/bin/evener
	@PYTHON=$(PYTHON) tools/setup.sh

setup-test:
	@PYTHON=$(PYTHON) tools/setup.sh --test

build: setup ## compile the XDP programs and the native library
	@$(VENV)/python -m evener._build

demo: build ## a client, two backends and the balancer in throw-away namespaces
	@$(SUDO) $(VENV)/evener demo

# One after the other, also under `make -j`: pytest's summary has to be the end of the output.
test: ## install what is missing, then lint, native tests, a short fuzz, and pytest
	@$(MAKE) --no-print-directory setup-test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-c
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory test-python

lint: ## formatting, style, types, and whether the generated files are current
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(if $(C_FILES),$(VENV)/clang-format --dry-run --Werror $(C_FILES))
	@set -e; for tool in $(GENERATORS); do echo "$(VENV)/python $$tool --check"; $(VENV)/python $$tool --check; done

format: ## let the formatters rewrite the sources
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .
	$(if $(C_FILES),$(VENV)/clang-format -i $(C_FILES))

generate: build ## rewrite the generated files
	@set -e; for tool in $(GENERATORS); do echo "$(VENV)/python $$tool"; $(VENV)/python $$tool; done

test-c: $(C_TESTS) ## the core's native tests under the address and undefined-behaviour sanitizers
	@set -e; for program in $(C_TESTS); do echo "$$program"; "$$program"; done

fuzz: $(C_FUZZERS) ## fuzz the core under the sanitizers, FUZZ_RUNS executions of each target
	@set -e; for program in $(C_FUZZERS); do echo "$$program"; mkdir -p "$$program.corpus"; \
		"$$program" -runs=$(FUZZ_RUNS) -timeout=10 -print_final_stats=1 -verbosity=0 -artifact_prefix=build/c/ \
			"$$program.corpus"; done

build/c/test_%: core/tests/test_%.c Makefile
	@mkdir -p $(@D)
	$(CLANG) $(TEST_CFLAGS) $(TEST_CHECKS) -MMD -MP -MF $@.d -MT $@ -o $@ $<

build/c/fuzz_%: core/tests/fuzz_%.c Makefile
	@mkdir -p $(@D)
	$(CLANG) $(TEST_CFLAGS) -O2 -fsanitize=fuzzer,address,undefined -MMD -MP -MF $@.d -MT $@ -o $@ $<

# The worker under the sanitizers takes a minute to compile on a busy machine: not in a test's time.
test-python:
	@! pkg-config --exists libdpdk || $(VENV)/python -m evener._build evener-dpdk-asan
	@$(SUDO) $(VENV)/python -m pytest $(PYTEST_ARGS)

test-asan: ## the live tests of the DPDK driver, with its worker under the sanitizers
	@$(MAKE) --no-print-directory setup-test
	@tools/asan_live.sh

bench: build ## the figures, each beside its goal
	@$(SUDO) $(VENV)/evener bench

ifneq ($(wildcard tools/vm_test.sh),)
vm-test: build ## the netns tests on a stock Debian kernel in a virtual machine
	@tools/vm_test.sh
endif

clean: ## remove what was built; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src/evener/_native -mindepth 1 ! -name __init__.py -delete

-include $(wildcard build/c/*.d)
