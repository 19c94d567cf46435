# Two commands do everything on a Debian or Ubuntu machine that has Rust: `make demo` and `make test`.
# They install what they miss (apt). `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= /usr/local
# The versions that the tests need beside the distribution's own.
VERSIONS := 14 14.3 16 17 18
# The programs that the tests get out of their packages.
UNPACKED := promtool prometheus-pushgateway nginx pgbouncer
# What the tests of packages need, because they change the root.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo -n env PATH="$$PATH" HOME="$$HOME")
# Seconds per target of `make fuzz`.
FUZZ_SECONDS ?= 30
# Unit tests that start servers; tests/tidy.rs knows when one is missing here.
WITH_SERVERS := archive::deletion::tests archive::tests backup::tests storage::s3 db::advisory_lock db::connection db::programs db::throwaway history::server history::suite

.PHONY: help demo test test-package check lint bench bench-sessions bench-maintain bench-audit build install uninstall deb screenshots deps unpacked deny fuzz

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## Back up and verify a sample database on a throwaway server (keeps opsctl-demo/)
	@scripts/install-deps.sh demo
	@$(MAKE) build
	@$(TARGET_DIR)/release/opsctl demo --dir opsctl-demo

test: ## Lint, then all tests against real PostgreSQL and S3 servers
	@scripts/install-deps.sh test
	@$(MAKE) unpacked
	@$(MAKE) lint
	$(CARGO) test --locked --no-fail-fast
	@$(MAKE) test-package

# The program is the one that the tests have built: another profile would take minutes.
test-package: ## The Debian package and the steps of the Dockerfile, in chroots (root, or sudo); the disaster drill with it
	@$(CARGO) test --locked --no-run --quiet --test integration
	@package=$$(FAST=yes OUT=target/debian-test scripts/build-deb.sh $(TARGET_DIR)/debug/opsctl); $(AS_ROOT) scripts/test-package.sh "$$package"; \
	OPSCTL_TEST_PACKAGE=$$(realpath "$$package") $(CARGO) test --locked --quiet --test integration runbook_disaster
	@$(AS_ROOT) scripts/test-image.sh $(TARGET_DIR)/debug/opsctl

check: ## What needs no server: formatting, clippy, unit tests and the rules about the tree
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --lib --test tidy -- $(WITH_SERVERS:%=--skip %)

lint: ## Formatting, clippy, documentation, and the rules about the tree
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked --quiet --test tidy

bench: ## Measure beside pg_dump on a database of 2.2 GiB, local and S3 (about 20 minutes)
	@scripts/install-deps.sh bench
	@$(MAKE) build
	@bin=$$(scripts/install-postgres.sh 17 | tail -n 1); \
	OPSCTL=$(TARGET_DIR)/release/opsctl ZSTD_PG_BIN=$${ZSTD_PG_BIN:-$$bin} bench/with-s3.sh bench/run.sh
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/overhead.sh
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/health.sh
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/maintain.sh
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/audit.sh

bench-sessions: ## Measure cleanup-sessions beside one DELETE on 5 million sessions that are in use (about 5 minutes)
	@scripts/install-deps.sh bench
	@$(MAKE) build
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/sessions.sh

bench-maintain: ## Measure db-maintain beside vacuumdb, reindexdb and VACUUM FULL under an application (about 5 minutes)
	@scripts/install-deps.sh bench
	@$(MAKE) build
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/maintain.sh

bench-audit: ## Measure archive-audit beside what scripts use, on 5 million rows (about 8 minutes)
	@scripts/install-deps.sh bench
	@$(MAKE) build
	@OPSCTL=$(TARGET_DIR)/release/opsctl bench/audit.sh

build: ## Build target/release/opsctl
	$(CARGO) build --locked --release

# By the environment, because no quotes fit every path.
install uninstall: export PREFIX := $(PREFIX)
install uninstall: export DESTDIR := $(DESTDIR)

install: build ## Install opsctl, man pages, completions, units and examples below PREFIX (/usr/local)
	scripts/install.sh $(TARGET_DIR)/release/opsctl

uninstall: ## Remove what `make install` installed: no configuration, no state, no backup
	scripts/install.sh --remove

deb: build ## Make the Debian package, in target/debian
	@scripts/build-deb.sh $(TARGET_DIR)/release/opsctl

screenshots: ## Make the pictures of docs/images anew (chromium)
	@scripts/install-deps.sh screenshots
	@$(MAKE) build
	@scripts/screenshots.sh $(TARGET_DIR)/release/opsctl

deps: ## Install what FOR=demo|test|bench|screenshots needs (FOR=test), and nothing else
	@scripts/install-deps.sh $(or $(FOR),test)
	@[[ "$(or $(FOR),test)" =~ ^(demo|screenshots)$$ ]] || $(MAKE) unpacked

# What the tests need beside the system's packages; nothing of it is installed into the system.
unpacked:
	@for version in $(VERSIONS); do scripts/install-postgres.sh $$version >/dev/null; done
	@for program in $(UNPACKED); do scripts/install-unpacked.sh $$program >/dev/null; done
	@scripts/install-brokers.sh >/dev/null
	@scripts/install-kubernetes-validate.sh >/dev/null
	@for program in kubectl dockerfilelint; do scripts/install-packaging.sh $$program >/dev/null; done
	@$(AS_ROOT) scripts/install-chroot.sh >/dev/null
	@scripts/install-frameworks.sh >/dev/null
	@scripts/install-python.sh readers >/dev/null
	@scripts/install-python.sh moto >/dev/null

deny: ## Check dependencies: advisories, licences, sources (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "make deny: cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked check

# AddressSanitizer takes tables of libdeflate, which is C, for a violation of a rule of C++.
fuzz: ## Fuzz every parser of foreign bytes for FUZZ_SECONDS each (needs nightly and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "make fuzz: cargo-fuzz is missing: cargo install --locked cargo-fuzz" >&2; exit 1; }
	@for target in $$($(CARGO) +nightly fuzz list); do \
		echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
		ASAN_OPTIONS=detect_odr_violation=0 $(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048; \
	done
