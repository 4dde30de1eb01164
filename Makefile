# make demo   builds an image and pushes it, start to finish, on a machine with nothing but Rust and apt
# make test   the unit and integration tests
# make build  the static binary, at target/kiln
# make lint   formatting and clippy, as CI runs them
# make bench  the workloads beside Debian's buildah
SHELL := /bin/bash

.PHONY: build demo test lint bench
build:
	tools/need build
	tools/build-release

demo: build
	tools/need demo
	tools/demo

test:
	tools/need build test
	cargo test --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

bench: build
	tools/need bench
	benches/run
