# SPDX-License-Identifier: MIT
#
# The words of everyday work. Meson and ninja do the building; this file only
# remembers their options. `make help` lists the words.

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
CASE ?=
STEP ?=
DOOR ?=
DISK ?=
MESON_FLAGS ?=

# Sanitizers stop at the first finding, so that it cannot scroll away.
export UBSAN_OPTIONS ?= halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS ?= halt_on_error=1:second_deadlock_stack=1

.DELETE_ON_ERROR:
.PHONY: all run check check-asan check-tsan bench campaign fuzz docs shell \
        install deb clean help

all: build/build.ninja ## build build/strata (the default)
	ninja -C build -j $(JOBS)

run: ## install what is missing, build, show a first guest
	tools/setup
	$(MAKE) --no-print-directory all
	DOOR=$(DOOR) tools/demo

check: ## build and run all tests; last line: N passed, N failed, N skipped
	tools/setup --check || true
	$(MAKE) --no-print-directory all
	tools/run-tests build --num-processes $(JOBS) -t 4

check-asan: build-asan/build.ninja ## all tests under clang's ASan and UBSan
	ninja -C build-asan -j $(JOBS)
	tools/run-tests build-asan --num-processes $(JOBS) -t 4

check-tsan: build-tsan/build.ninja ## suite `concurrent` under gcc's TSan
	ninja -C build-tsan -j $(JOBS)
	tools/run-tests build-tsan --num-processes $(JOBS) -t 8 --suite concurrent

bench: all ## race the rivals, draw a chart: make bench CASE=name, or all
	bench/run --chart build/bench/chart.svg $(CASE)

campaign: all ## the full counts, for hours; or make campaign STEP='guest-*'
	tests/campaign build $(STEP)

fuzz: build-fuzz/build.ninja ## run every fuzz target for a while
	ninja -C build-fuzz -j $(JOBS)
	tests/fuzz-run build-fuzz

shell: all ## a prompt in that guest; DOOR=nbd, DISK=mem:64M for another one
	@door=$$(DOOR=$(DOOR) tools/door) && \
	tests/guest/run --shell --script tests/guest/scripts/demo \
	    --door "$$door" $(if $(DISK),--disk '$(DISK)')

docs: ## the reference into build/docs, which Doxygen must find complete
	docs/make-docs build/docs

install: all ## install below PREFIX (DESTDIR is honoured)
	meson configure build -Dprefix=$(PREFIX)
	meson install -C build

deb: ## build the Debian packages in build-deb
	packaging/build-deb build-deb

clean: ## remove every build directory
	rm -rf build build-asan build-tsan build-fuzz build-deb

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# A build directory is configured when it is missing; after that ninja itself
# notices a changed meson.build. debugoptimized is -O2 -g.
setup = meson setup $(@D) --buildtype=debugoptimized --libdir=lib $(MESON_FLAGS)

build/build.ninja:
	$(setup) --prefix=$(PREFIX)

build-asan/build.ninja:
	tools/setup --dev --check || true
	CC=clang $(setup) -Db_sanitize=address,undefined -Db_lundef=false

build-tsan/build.ninja:
	CC=gcc $(setup) -Db_sanitize=thread

build-fuzz/build.ninja:
	tools/setup --dev --check || true
	CC=clang $(setup) -Dfuzz=true -Db_sanitize=address,undefined \
	    -Db_lundef=false
