#!/usr/bin/env bash
# Test of test.sh, of the script alone: ctest is the real one, on a build of four tests that need not be built. What is
# skipped is counted, and with QLORA_REQUIRE_GOLDENS=1 a skipped golden test is a failure.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/path" "$work/tree/scripts"
cp scripts/*.sh "$work/tree/scripts/"
printf '#!/bin/sh\necho "install ok installed"\n' > "$work/path/dpkg-query"
printf '#!/bin/sh\nexit 0\n' > "$work/path/cmake"
chmod +x "$work/path"/*

check() {  # STATUS REQUIRE GOLDEN TSAN TEXT...: how test.sh ends where two tests print this, and lines it writes
  local want=$1 require=$2 golden=$3 tsan=$4 status=0
  shift 4
  mkdir -p "$work/tree/build"
  cat > "$work/tree/build/CTestTestfile.cmake" << EOF
add_test("base: numbers" "true")
add_test("text: words as theirs" "echo" "$golden")
set_tests_properties("text: words as theirs" PROPERTIES LABELS golden SKIP_REGULAR_EXPRESSION "SKIPPED: ")
add_test("kernels: under asan" "true")
add_test("kernels: under tsan" "echo" "$tsan")
set_tests_properties("kernels: under asan" "kernels: under tsan" PROPERTIES
  LABELS sanitizer SKIP_REGULAR_EXPRESSION "unexpected memory mapping")
EOF
  PATH="$work/path:$PATH" QLORA_GOLDENS=$work/none QLORA_REQUIRE_GOLDENS=$require "$work/tree/scripts/test.sh" \
    > "$work/out" 2>&1 || status=$?
  [ "$status" = "$want" ] || { cat "$work/out"; echo "test.sh ended with $status, not $want" >&2; exit 1; }
  for text in "$@"; do
    grep -qFx -- "$text" "$work/out" || { cat "$work/out"; echo "no line '$text'" >&2; exit 1; }
  done
}
no_goldens="SKIPPED: no goldens" no_start="FATAL: ThreadSanitizer: unexpected memory mapping 0x1-0x2"

check 0 1 fine fine "golden tests: 1 run, 0 skipped" "tests under a sanitizer: 2 run, 0 skipped" \
  "4 passed, 0 failed, 0 skipped"
check 0 0 "$no_goldens" "$no_start" "golden tests: 0 run, 1 skipped" "2 passed, 0 failed, 2 skipped"
check 1 1 "$no_goldens" fine "QLORA_REQUIRE_GOLDENS=1, but golden tests were skipped"
check 0 1 fine "$no_start" "tests under a sanitizer: 1 run, 1 skipped" "3 passed, 0 failed, 1 skipped"
echo "test.sh counts what was skipped, and fails where nothing may be"
