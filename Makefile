# What one types to build, see, check and test watrunk. Only Debian, Rust and git are taken for granted:
# whatever else is missing is installed by `deps`.

export WATRUNK_CACHE ?= $(HOME)/.cache/watrunk
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n)
PYTEST = -m pytest -q -p no:cacheprovider -p plugin --durations=5 --color=no

OF_THE_LAB = WATRUNK_BINARY WATRUNK_MANY WATRUNK_DRIFT_SECONDS WATRUNK_DRIFT_PPM

TARGETS = aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf x86_64-unknown-linux-musl

.PHONY: build demo check test real many drift fuzz cross cross-test deb package-test box-test deps

build: ## the binary, for looking around: target/debug/watrunk
	@tests/lab/need.sh build
	cargo build --locked

demo: ## a whole call on this machine, with measurements; no account and no PBX needed
	@tests/lab/need.sh build
	cargo run --locked -- demo

check: ## formatting and lints
	@tests/lab/need.sh build
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets --all-features -- -D warnings

# The Python environment and the Asterisk tree are made while cargo compiles.
test: deps ## everything: unit tests, then the real binary against a real Asterisk and a WebRTC peer
	@mkdir -p target
	@set -eu; \
	tests/lab/prepare.sh >target/lab-python 2>target/lab-prepare.log & prepare=$$!; \
	trap 'kill $$prepare 2>/dev/null || true' EXIT; \
	cargo build --locked; \
	cargo test --locked; \
	wait $$prepare || { cat target/lab-prepare.log >&2; exit 1; }
	@$(MAKE) --no-print-directory real

real: ## only the tests of tests/lab and tests/real; WHAT="-k words" picks some
	@tests/lab/need.sh test
	@mkdir -p target && tests/lab/prepare.sh >target/lab-python
	$(SUDO) env WATRUNK_CACHE="$(WATRUNK_CACHE)" $(foreach v,$(OF_THE_LAB),$(if $($v),$v="$($v)")) PYTHONPATH=tests/lab \
		PYTHONDONTWRITEBYTECODE=1 "$$(cat target/lab-python)" $(PYTEST) tests/lab tests/real $(WHAT)

# Two measurements for a machine that does nothing else. In CI the same tests run with less of everything.
many: ## fifty calls at once: plain, recorded, with agents; CALLS=30 for fewer, WATRUNK_BINARY=FILE for another binary than the debug one
	@$(MAKE) --no-print-directory real WATRUNK_MANY=$(or $(CALLS),50) WHAT="-k calls_at_once"

drift: ## ten minutes of a bad network, and ends whose clocks are 100 ppm fast and slow: how far apart the two sides of a recording are
	@$(MAKE) --no-print-directory real WATRUNK_DRIFT_SECONDS=$(or $(SECONDS),605) WATRUNK_DRIFT_PPM=100 WHAT="-k same_moment"

fuzz: ## mutated messages for everything that reads what strangers send; SECONDS=600 for longer, WHAT="sip sdp" picks some
	@tests/lab/need.sh build fuzz
	@tests/fuzz/run.sh $(or $(SECONDS),30) $(WHAT)

cross: ## static binaries for boxes, without a container engine: target/dist/TARGET/watrunk; TARGET="…" picks some
	@tests/lab/need.sh build cross
	board/build.sh $(TARGET)

cross-test: cross ## each of them carries a call; ARM under an emulator
	@tests/lab/need.sh test
	@tests/lab/prepare.sh >target/lab-python
	$(SUDO) env WATRUNK_CACHE="$(WATRUNK_CACHE)" WATRUNK_STATIC="$$(cat target/dist/commands)" PYTHONPATH=tests/lab \
		PYTHONDONTWRITEBYTECODE=1 "$$(cat target/lab-python)" $(PYTEST) tests/emulated

deb: cross ## the Debian packages: target/deb/; TARGET="…" picks some
	@set -e; for target in $(or $(TARGET),$(TARGETS)); do board/deb/build.sh $$target; done

package-test: deb ## installed, upgraded, purged, and calls inside the sandbox, under a real systemd
	@tests/lab/need.sh test package
	@tests/lab/prepare.sh >target/lab-python
	@$(SUDO) tests/package/trees.sh "$(WATRUNK_CACHE)"   # here, where there is a network: the tests have none
	$(SUDO) env WATRUNK_CACHE="$(WATRUNK_CACHE)" PYTHONPATH=tests/lab PYTHONDONTWRITEBYTECODE=1 \
		"$$(cat target/lab-python)" $(PYTEST) tests/package

box-test: ## the arm64 package on a whole emulated board; some minutes, and not in CI. Needs `make deb` once
	@tests/lab/need.sh test machine
	@tests/lab/prepare.sh >target/lab-python
	@$(SUDO) tests/package/trees.sh "$(WATRUNK_CACHE)"
	@tests/machine/kernel.sh "$(WATRUNK_CACHE)/machine"
	$(SUDO) env WATRUNK_CACHE="$(WATRUNK_CACHE)" PYTHONPATH=tests/lab:tests/package PYTHONDONTWRITEBYTECODE=1 \
		"$$(cat target/lab-python)" $(PYTEST) tests/machine

deps: ## installs what is missing on this machine to build and to test
	@tests/lab/need.sh build test
