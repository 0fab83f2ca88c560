# `make demo` and `make test` need a Rust toolchain, a C compiler, make and Python 3 with its venv module. What else they
# need they fetch from the package registries, into target/.

CARGO ?= cargo
PYTHON ?= python3
VENV := target/venv

.PHONY: library build demo test rust-test fuzz-test host-test python-test julia-test bench bench-smoke traces soak check-deep check-broken reference header clean

# The library.
library:
	$(CARGO) build --release -p npcache-ffi
	ln -sf libnpcache.so target/release/libnpcache.so.1

# And the command.
build: library
	$(CARGO) build --release -p npcache-cli

# The main job on real input; fails if what it shows did not happen.
demo: library
	$(MAKE) -C examples-c
	$(PYTHON) examples-c/demo.py

test: rust-test fuzz-test host-test python-test julia-test bench-smoke

rust-test:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) test --workspace

# The fuzz targets on their corpus, and for some seconds on what chance makes of it.
fuzz-test:
	cd fuzz && $(CARGO) fmt --check && $(CARGO) clippy --target-dir ../target --all-targets -- -D warnings
	cd fuzz && $(CARGO) test --target-dir ../target --test corpus -- --nocapture

# What crosses a language or a process: C, C++, Python.
host-test: build $(VENV)/ready
	$(VENV)/bin/python -m pytest tests

# The fault suite (tests/faults) for about so long, with what it only samples in `make test` done in whole: make soak SECONDS=3600
SECONDS ?= 600
soak: build $(VENV)/ready
	FAULT_SECONDS=$(SECONDS) $(VENV)/bin/python -m pytest tests/faults

# Fuzzers, sanitizers, the model checker, valgrind, coverage, and what is depended on and promised: tests/check_deep.sh.
check-deep: build $(VENV)/ready
	tests/check_deep.sh

# Takes out one protection after the other and sees that the test which holds it fails; in target/broken.
check-broken: $(VENV)/ready
	$(VENV)/bin/python tests/faults/broken.py

# The Python package, on the oldest and the newest Python that there is.
python-test: build $(VENV)/ready
	$(PYTHON) tests/pythons.py
	cd python && ../$(VENV)/bin/ruff check . && ../$(VENV)/bin/ruff format --check . && ../$(VENV)/bin/mypy

# The Julia package, on a real Julia that is fetched into target/julia.
julia-test: build $(VENV)/ready
	julia=$$(tests/get_julia.sh) && $$julia --project=julia/NPCache julia/NPCache/test/runtests.jl

$(VENV)/ready: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

# This project beside its floors and its peers; see benches/run.py.
bench: build
	$(PYTHON) benches/run.py

bench-smoke: build
	$(PYTHON) benches/run.py --smoke

# The policies on traces of calls, beside an oracle: prints a table and draws benches/traces.svg. The recorded one, block
# requests of a virtual machine, is in the source package of libCacheSim's bindings, 81 MB.
RECORDED := target/recorded/requests
traces: $(RECORDED)
	rustc -O --edition 2024 benches/traces.rs -o target/traces
	target/traces benches/traces.svg $(RECORDED)

$(RECORDED):
	$(PYTHON) -m venv target/recorded
	target/recorded/bin/python -m pip install --quiet --disable-pip-version-check scikit-build-core
	target/recorded/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--no-binary :all: --dest target/recorded libcachesim==0.3.5
	tar --extract --to-stdout --file target/recorded/libcachesim-0.3.5.tar.gz --wildcards '*/data/cloudPhysicsIO.csv' \
		| awk -F, 'NR > 1 { print $$2, $$5, $$4 }' > $@.part
	mv $@.part $@

include packaging/install.mk

# The reference of the C API, in target/doc-c/html; needs doxygen.
reference:
	doxygen docs/Doxyfile

# Writes include/npcache.h anew from the code.
header:
	NPCACHE_WRITE_HEADER=1 $(CARGO) test -p npcache-ffi --test header

clean:
	$(CARGO) clean
