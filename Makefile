# `make demo` and `make test` need a Rust toolchain, a C compiler, make and Python 3 with its venv module. What else they
# need they fetch from the package registries, into target/.

CARGO ?= cargo
PYTHON ?= python3
VENV := target/venv

.PHONY: build demo test rust-test host-test reference header clean

build:
	$(CARGO) build --release -p npcache-ffi
	ln -sf libnpcache.so target/release/libnpcache.so.1

# The main job on real input; fails if what it shows did not happen.
demo: build
	$(MAKE) -C examples-c
	$(PYTHON) examples-c/demo.py

test: rust-test host-test

rust-test:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) test --workspace

# What crosses a language or a process: C, C++, Python.
host-test: build $(VENV)/ready
	$(VENV)/bin/python -m pytest tests

$(VENV)/ready: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

include packaging/install.mk

# The reference of the C API, in target/doc-c/html; needs doxygen.
reference:
	doxygen docs/Doxyfile

# Writes include/npcache.h anew from the code.
header:
	NPCACHE_WRITE_HEADER=1 $(CARGO) test -p npcache-ffi --test header

clean:
	$(CARGO) clean
