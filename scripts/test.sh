#!/usr/bin/env bash
# Installs what is missing, builds program and tests, and runs the tests.
#   scripts/test.sh [ctest arguments]      e.g. scripts/test.sh -L unit
# Outside data is looked for under QLORA_GOLDENS (default ../shared/goldens) and QLORA_TEST_DATA (../shared/data);
# tests that find none are skipped and counted. Where goldens of SmolLM2 lie, the model itself is obtained too.
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

# Counts "Test #n: NAME ... Skipped" lines of the golden tests.
golden_names=$(ctest --test-dir build -N -L golden "$@" | sed -n 's/^ *Test *#[0-9]*: //p')
golden_all=$(printf '%s' "$golden_names" | grep -c . || true)
golden_skipped=$(grep -F 'Skipped' "$log" | grep -cF "${golden_names:-no golden test}" || true)
passed=$(grep -cE ' Passed ' "$log" || true)
skipped=$(grep -cE '\*\*\*Skipped' "$log" || true)
failed=$(grep -cE '\*\*\*(Failed|Timeout|Exception|Not Run)' "$log" || true)
echo "golden tests: $((golden_all - golden_skipped)) run, $golden_skipped skipped"
echo "$passed passed, $failed failed, $skipped skipped"
if [ "$golden_skipped" -gt 0 ] && [ "${QLORA_REQUIRE_GOLDENS:-0}" = 1 ]; then
  echo "golden tests were skipped although QLORA_REQUIRE_GOLDENS=1" >&2
  exit 1
fi
exit "$status"
