#!/usr/bin/env bash
# Installs what is missing, builds program and tests, and runs the tests.
#   scripts/test.sh [ctest arguments]      e.g. scripts/test.sh -L unit
# Outside data is looked for under QLORA_GOLDENS (default ../shared/goldens) and QLORA_TEST_DATA (../shared/data);
# tests that find none are skipped and counted, and with QLORA_REQUIRE_GOLDENS=1 that is a failure. Tests under a sanitizer
# that the kernel does not let start are skipped and counted too. Where goldens of SmolLM2 lie, the model itself is
# obtained.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
# shellcheck disable=SC2086
scripts/install_packages.sh $QLORA_BUILD_PACKAGES $QLORA_TEST_PACKAGES
mkdir -p build
if ! cmake --preset release -DQLORA_TESTS=ON > build/configure.log 2>&1; then
  cat build/configure.log >&2
  exit 1
fi
cmake --build --preset release

smollm2=${QLORA_HOME:-.cache/qlora}/models/SmolLM2-135M-Instruct
if [ -d "${QLORA_GOLDENS:-../shared/goldens}/smollm2" ] && [ ! -f "$smollm2/config.json" ]; then
  scripts/get_smollm2.sh build/bin/qlora "$smollm2" || echo "tests of SmolLM2 will be skipped" >&2
fi

log=build/ctest.log
status=0
ctest --test-dir build --output-on-failure -j "$(nproc)" --no-tests=error "$@" | tee "$log" || status=$?

# From "12/345 Test #12: NAME ......   Passed" lines: who passed, who was skipped, and which of them are golden.
outcome() { sed -nE "s/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: (.*[^.]) \.*( |\*\*\*)*$1 .*/\1/p" "$log"; }
outcome Skipped | sort > build/skipped.txt
labelled() { ctest --test-dir build -N -L "$@" | sed -nE 's/^ *Test +#[0-9]+: //p' | sort; }
labelled golden "$@" > build/golden.txt
labelled sanitizer "$@" > build/sanitizer.txt
golden_all=$(wc -l < build/golden.txt)
golden_skipped=$(comm -12 build/skipped.txt build/golden.txt | wc -l)
sanitizer_all=$(wc -l < build/sanitizer.txt)
sanitizer_skipped=$(comm -12 build/skipped.txt build/sanitizer.txt | wc -l)
passed=$(grep -cE ' Passed ' "$log" || true)
skipped=$(wc -l < build/skipped.txt)
failed=$(grep -cE '\*\*\*(Failed|Timeout|Exception|Not Run)' "$log" || true)
echo "golden tests: $((golden_all - golden_skipped)) run, $golden_skipped skipped"
echo "tests under a sanitizer: $((sanitizer_all - sanitizer_skipped)) run, $sanitizer_skipped skipped"
echo "$passed passed, $failed failed, $skipped skipped"
if [ "${QLORA_REQUIRE_GOLDENS:-0}" = 1 ] && { [ "$golden_skipped" -gt 0 ] || [ "$golden_all" -eq 0 ]; }; then
  echo "QLORA_REQUIRE_GOLDENS=1, but golden tests were skipped" >&2
  status=1
fi
exit "$status"
