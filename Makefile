# make run    the demonstration; make run CMD='python3 my_agent.py' governs a command of yours
# make test   everything that is checked, with what it needs
# make soak   kills under load, 300 times; connections that end badly, 10,000 times
# make fuzz   looks for bytes that break the protocols' laws: make fuzz SECONDS=600 TARGET=sql
# make suites drivers' own test suites, direct and through the relay; half an hour

CARGO ?= cargo
BUILT := $(or $(CARGO_TARGET_DIR),target)
PYTHON ?= python3

.PHONY: run test soak fuzz suites fmt lint bench

run:
	$(CARGO) build --release
	@$(PYTHON) demo/demo.py "$(abspath $(BUILT)/release/openbox-sidecar)" $(if $(CMD),'$(subst ','\'',$(CMD))')

test:
	@scripts/test.sh

soak:
	OPENBOX_TEST_CRASHES=300 $(CARGO) test --features testing --test governed_http crashes -- --nocapture
	OPENBOX_TEST_LEAKS=10000 $(CARGO) test --features testing --test governed_http leaks -- --nocapture

# Each target for SECONDS, or the one that is named.
fuzz:
	scripts/fuzz.sh $(or $(SECONDS),60) $(TARGET)

suites:
	$(PYTHON) tests/suites/postgres.py

fmt:
	$(CARGO) fmt

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features testing -- -D warnings

bench:
	$(CARGO) bench
