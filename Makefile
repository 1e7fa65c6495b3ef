# SPDX-License-Identifier: Apache-2.0
# Front door. All work is done by `cargo xtask` (tests/harness); `cargo xtask help` shows more than this file does.
#
# Variables: KERNEL_SRC=/path builds that Linux 7.3 tree instead of Debian's source package; GZVM_MODULE=/path/gzvm.ko
# makes `make bench` measure that module instead of ours.

# Cargo of the user's PATH, else Debian's.
CARGO := $(shell command -v cargo || echo /usr/bin/cargo)
# Flags of this make are not meant for the makes and Cargos below. The first build of the harness itself is shown,
# later ones are quick.
XTASK = @tests/harness/bootstrap.sh && export MAKEFLAGS= MAKELEVEL= && \
	{ [ -d target/debug ] || $(CARGO) build --package xtask; } && $(CARGO) xtask

.PHONY: help run shell test test-host test-full test-debug test-mutations bench patches docs build clean

help:
	@echo "make run             boot the demo: protected VMs on the reference hypervisor, in QEMU"
	@echo "make shell           an interactive shell on the host of that machine"
	@echo "make test            all tests, here and in QEMU; JUnit XML in target/reports"
	@echo "make test-host       the part of them that needs neither QEMU nor a kernel"
	@echo "make test-full       all tests, and storms of full length: hundreds of VMs that are killed at any moment"
	@echo "make test-debug      the device tests on a kernel with KASAN and kmemleak (built once, as long as the first)"
	@echo "make test-mutations  break the driver on purpose, and see that the tests notice"
	@echo "make bench           count what events cost, compare with the checked-in numbers (docs/performance.md)"
	@echo "make patches         the driver as patches for the kernel's mailing lists, checked"
	@echo "make docs            the book in docs/ as web pages in target/book, links checked (needs mdbook: cargo install mdbook)"
	@echo "make build           build everything that a boot needs"
	@echo "make clean           remove what was built (the cached kernel stays: cargo xtask clean --cache)"
	@echo
	@echo "The first build takes 20 to 30 minutes, most of it for the kernel, which is kept in ~/.cache/gzvm."

run:
	$(XTASK) run

shell:
	$(XTASK) shell

test:
	$(XTASK) test

test-host:
	$(XTASK) test --host

test-full:
	$(XTASK) test --full

test-debug:
	$(XTASK) test --debug

test-mutations:
	$(XTASK) mutations

bench:
	$(XTASK) bench

patches:
	$(XTASK) patches

docs:
	$(XTASK) docs

build:
	$(XTASK) build

clean:
	$(XTASK) clean
