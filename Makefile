# make demo   builds an image and pushes it, start to finish, on a machine with nothing but Rust and apt
# make test   the unit and integration tests
# make build  the static binary, at target/kiln
# make lint   formatting and clippy, as CI runs them
# make fuzz   every parser and unpacker on made-up input, KILN_FUZZ_SECONDS (60) each
# make bench  the workloads beside Debian's buildah
SHELL := /bin/bash

.PHONY: build demo test fuzz lint bench
build:
	tools/need build
	tools/build-release

demo: build
	tools/need demo
	tools/demo

test:
	tools/need build test
	cargo test --locked

fuzz:
	tools/need build test
	KILN_FUZZ_SECONDS=$${KILN_FUZZ_SECONDS:-60} cargo test --locked --test it fuzz:: -- --nocapture --test-threads 1

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench: build
	tools/need bench
	benches/run
