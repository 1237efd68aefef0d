#!/usr/bin/env bash
# Looks for bytes that break the laws of the protocols: fuzz.sh SECONDS [TARGET…]
# fuzz.sh keep TARGET: brings what was found in the working corpus into the repository's.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly TRIPLE=$(rustc -vV | sed -n 's/^host: //p')
readonly BUILT=${CARGO_TARGET_DIR:-$PWD/target}
readonly FOUND=$BUILT/fuzz
readonly PROGRAM=$BUILT/$TRIPLE/release/openbox-sidecar-fuzz

# A stable compiler instruments code for libFuzzer as a nightly one does. Only for the target, so
# that build scripts and macros, which have no fuzzer to call, are left alone.
build() {
	command -v c++ >/dev/null || { echo "libFuzzer is C++: apt-get install g++" >&2; exit 1; }
	RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
		${CARGO:-cargo} build --release --locked --manifest-path tests/fuzz/Cargo.toml \
		--target "$TRIPLE" --target-dir "$BUILT"
}

targets() { ls tests/fuzz/corpus; }

fuzz() { # target, seconds
	local working=$FOUND/corpus/$1 broken=$FOUND/broken/$1
	mkdir -p "$working" "$broken"
	echo "== $1, $2 s"
	OPENBOX_FUZZ_TARGET=$1 "$PROGRAM" "$working" "tests/fuzz/corpus/$1" -artifact_prefix="$broken/" \
		-max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -max_len=2048 -print_final_stats=1 \
		-verbosity=0 || { echo "broken by a file in $broken" >&2; return 1; }
}

# The smallest set of files that reaches as much as all of them, files that are kept first.
keep() { # target
	local merged
	merged=$(mktemp -d)
	OPENBOX_FUZZ_TARGET=$1 "$PROGRAM" -merge=1 -max_len=256 -verbosity=0 "$merged" "tests/fuzz/corpus/$1" "$FOUND/corpus/$1"
	local kept=0
	for file in $(ls -S -r "$merged"); do
		((kept < 120)) || break
		cp -n "$merged/$file" "tests/fuzz/corpus/$1/"
		kept=$((kept + 1))
	done
	rm -rf "$merged"
	echo "$1: $(ls "tests/fuzz/corpus/$1" | wc -l) files"
}

build
if [[ ${1:-} == keep ]]; then
	keep "$2"
	exit
fi
seconds=${1:-60}
shift || true
failed=0
for target in ${*:-$(targets)}; do
	fuzz "$target" "$seconds" || failed=1
done
exit $failed
