#!/usr/bin/env bash
# Runs everything that is checked; installs what that needs and is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

started=$SECONDS
step "packages that building and the tests need"
scripts/needs.sh packages
# Most of the time of what else is missing is spent in waiting for downloads.
told=$(mktemp)
scripts/needs.sh >"$told" 2>&1 &
needs=$!
trap 'kill "$needs" 2>/dev/null || true; rm -f "$told"' EXIT
export PATH="$PWD/.tools/bin:$PATH"
export OPENBOX_TEST_PYTHON="$PWD/.venv/bin/python"

step "format"
cargo fmt --check
step "lints"
cargo clippy --all-targets --features testing -- -D warnings
step "what else the tests need"
wait "$needs" || {
	cat "$told" >&2
	exit 1
}
cat "$told"
step "dependencies: bans, licenses, sources"
cargo deny --log-level error check bans licenses sources
step "tests"
cargo test --all-targets --features testing
step "both local APIs, by their OpenAPI documents"
.venv-apis/bin/python tests/apis/apis.py "${CARGO_TARGET_DIR:-target}/debug/openbox-sidecar"
step "charts and patched manifests"
.venv-charts/bin/python tests/charts/charts.py "${CARGO_TARGET_DIR:-target}/debug/openbox-sidecar"
step "the admission webhook"
.venv-charts/bin/python tests/charts/reviews.py "${CARGO_TARGET_DIR:-target}/debug/openbox-sidecar"
step "the image, built and started"
image_not_run=""
if (($(id -u) == 0)); then
	scripts/image-root.sh "$PWD/target/image" --features testing
	python3 tests/image/image.py
	step "connections that the kernel leads to the sidecar"
	python3 tests/redirect/redirect.py "${CARGO_TARGET_DIR:-target}/debug/openbox-sidecar"
else
	image_not_run="; tests/image and tests/redirect, which mount, set rules and change their user, and so must be root"
fi
step "documentation tests"
cargo test --doc --features testing

not_run="cargo deny advisories, which needs a network"
no_sid() { # folder of .tools, tests
	[[ -x .tools/$1/run ]] || not_run+="; tests of $2, as Debian sid was not there to get $1 from"
}
no_sid valkey tests/governed_redis/newer.rs
no_sid redis8 tests/governed_redis/newer.rs
no_sid mysql9 "tests/governed_mysql/oracle.rs and half of corpus.rs"
no_sid mariadb11 tests/governed_mysql/newer.rs
[[ -x .tools/node24/run ]] || not_run+="; fetch of Node 24, as there was no package of it for this machine"
for minor in 11 12 13; do
	[[ -x .tools/python3.$minor/bin/python ]] || not_run+="; HTTP clients of Python 3.$minor, as there is no python3.$minor"
done
[[ -d .tools/mysql9-tests ]] || not_run+="; half of tests/governed_mysql/corpus.rs, as Debian sid was not there to get mysql9-tests from"
not_run+=$image_not_run
printf '\nall checks passed in %s s (not run: %s)\n' "$((SECONDS - started))" "$not_run"
