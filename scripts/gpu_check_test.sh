#!/usr/bin/env bash
# Test of gpu_check.sh, of the script alone: all of it runs, as with --emulated and as on a machine with a GPU, with
# stand-ins in the place of cmake, of NVIDIA's tools and of the executables, which print rows as theirs and refuse what
# those do not know. What fails must be said and end in failure.
# shellcheck disable=SC2016
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
sources=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CUDA_DEVICE_ORDER CUDA_VISIBLE_DEVICES QLORA_CUDA_GRAPHS
tree=$work/tree bin=$work/tree/build/bin path=$work/path
mkdir -p "$path" "$bin" "$tree/scripts"
cp -r scripts/*.sh scripts/peers "$tree/scripts/"  # without git and sources, and reports stay here
export CALLS=$work/calls FOUND=clean  # by the sanitizer; or wrong, and then the peers are left aside

stand_in() {  # FILE: an executable that notes how it is called and does what stands in the input
  { printf '#!/bin/bash\necho "${0##*/} $*" >> "$CALLS"\n'; cat; } > "$1"
  chmod +x "$1"
}
stand_in "$path/cmake" <<< 'echo built'
stand_in "$tree/scripts/install_packages.sh" <<< 'echo "nothing is installed by a test"'
# Without its packages, so that the peers say what they miss; at tiny sizes two of them have rows.
if python=$(command -v python3); then
  stand_in "$path/python3" << EOF
[ \$FOUND = clean ] || exit 0
case "\$*" in
  *"gpu_peer.py attention --tiny"*) echo "peer SDPA 1x48 2 heads of 64 forward                  4 TFLOP/s    processor, bf16" ;;
  *"gpu_peer.py step --tiny"*) echo "peer PEFT dense bf16 step tiny 2x20                1568 tokens/s   processor, bf16" ;;
esac
exec "$python" -I -S "\$@"
EOF
fi
stand_in "$path/nvcc" << 'EOF'
[ "$*" = --version ] || exit 2
echo "Cuda compilation tools, release 13.0, V13.0.88"
EOF
stand_in "$path/nvidia-smi" << 'EOF'
[ "$1 $4" = "-i --format=csv,noheader" ] || exit 2
first=${CUDA_VISIBLE_DEVICES:-0}
[ "$2" = "${first%%,*}" ] || { echo "No devices were found"; exit 6; }
case "$3" in
  --query-gpu=name) echo "NVIDIA H100 80GB HBM3" ;;
  --query-gpu=compute_cap) echo 9.0 ;;
  --query-gpu=name,driver_version,memory.total,compute_cap) echo "NVIDIA H100 80GB HBM3, 580.65.06, 81559 MiB, 9.0" ;;
  *) exit 2 ;;
esac
EOF
stand_in "$path/compute-sanitizer" << 'EOF'
[ "$1 $3 $4" = "--tool --error-exitcode 9" ] || exit 2
"${@:5}" || exit 2
case "$2 $FOUND" in
  "synccheck clean") echo "========= Error: Target application terminated before its first call" >&2; exit 1 ;;
  "memcheck wrong") echo "========= Invalid __global__ read of size 4"; echo "========= ERROR SUMMARY: 3 errors"; exit 9 ;;
  "racecheck wrong") echo "a race"; echo "========= RACECHECK SUMMARY: 10 hazards displayed (0 errors, 10 warnings)" ;;
  "synccheck wrong") echo "a test failed"; echo "========= ERROR SUMMARY: 0 errors"; exit 42 ;;
  "initcheck clean") echo "========= ERROR SUMMARY: 0 errors"; exit 124 ;;
  "racecheck clean") echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)" ;;
  "memcheck clean" | "initcheck wrong") echo "========= ERROR SUMMARY: 0 errors" ;;
  *) exit 2 ;;
esac
EOF
stand_in "$bin/qlora_kernels_test" <<< '[ "$1 $2" = "-w NoTests" ] && echo "All tests passed on ${QLORA_CASES_BACKEND:?}"'
stand_in "$bin/qlora_train_test" <<< '[ "$1 $2" = "-w NoTests" ] && echo "packed = alone, run a                    the same bits, losses differ by 0 at most"'
stand_in "$bin/qlora_scoring_test" <<< 'echo "prefix reuse: log-probabilities differ by 1e-6 nats at most, 0 flips in 8 answers"'
stand_in "$bin/qlora_device_bench" << 'EOF'
[[ "${CUDA_DEVICE_ORDER:-} $*" =~ ^("PCI_BUS_ID cuda"|" cuda-emulated --quick")$ ]] || exit 2
echo "copy on the device                                 3000 GB/s"
echo "dequantize nf4+dq 11008x4096 to bf16                2.7 TB/s       0.90 of the copy"
echo "attention 1x48 2 heads of 64 forward                  3 TFLOP/s"
EOF
stand_in "$bin/qlora_gpu_bench" << 'EOF'
shape=$3 batch=4 tokens=512 decode=0 optim=adamw_torch
[[ "$1 $2 $3" =~ ^(cuda|cuda-emulated)\ (step|packed)\ (tiny|135m|1.1b|7b|13b|33b)$ ]] || exit 2
for word in "${@:4}"; do
  case "$word" in
    batch=[1-9]* | tokens=[1-9]* | decode=1 | optim=?*) declare "$word" ;;
    seconds=[0-9]* | memory=[1-9]* | lora_r=[1-9]*) ;;
    gradient_checkpointing=offload) offload=" offload" ;;
    *) echo "no key $word"; exit 2 ;;
  esac
done
# Of training, graphs are what the program would choose; of decoding, what it should have chosen.
case "${QLORA_CUDA_GRAPHS=}" in off) rate=1000 token=500 ;; on) rate=2000 token=1000 ;; "") rate=1960 token=600 ;; *) exit 2 ;; esac
graphs=${QLORA_CUDA_GRAPHS:+, graphs $QLORA_CUDA_GRAPHS}
if [ "$2" = packed ]; then
  echo "packed $shape 8 runs of 1x$tokens                    900 tokens/s   0.90 of one run of 8x$tokens"
  exit 0
fi
name="step $shape ${batch}x$tokens $optim$offload"
echo "$name$graphs                           $rate tokens/s"
echo "$name memory$graphs                    1000 MiB        of 1010 MiB planned (0.990), its context 0 MiB"
[ "$decode" = 0 ] || echo "decode $shape 1 sequences$graphs                 $token tokens/s"
EOF

fail() { cat "$work/out"; echo "$*" >&2; exit 1; }
check() {  # STATUS ARGUMENT...: how the script ends, and its report is written
  local want=$1 status=0
  shift
  rm -rf "$tree/results" "$CALLS"
  PATH="$path:$PATH" bash "$tree/scripts/gpu_check.sh" --build build "$@" > "$work/out" 2>&1 || status=$?
  [ "$status" = "$want" ] || fail "gpu_check $* ended with $status, not $want"
  file=$(echo "$tree"/results/gpu/*)
  report=$(< "$file")
}
expect() {  # TEXT...: parts of the report
  for text in "$@"; do [[ $report == *"$text"* ]] || fail "no '$text' in the report"; done
}
called() {  # LINE...: how something was called
  for line in "$@"; do grep -qxF -- "$line" "$CALLS" || { cat "$CALLS"; fail "'$line' was not called"; }; done
}
sections=(configure build-kernels parity same-bits kernels build-steps laws build-scoring scoring)
peers=(peer-attention peer-product peer-step peer-step4bit)
passed() { for name in "$@"; do expect $'\n'"$name: passed in "; done; }
sanitized() { for line in "$@"; do expect $'\n'"compute-sanitizer $line"$'\n'; done; }

# --emulated
check 0 --emulated
passed "${sections[@]}" step-tiny step-tiny-paged graphs-off-tiny graphs-on-tiny packed-tiny cases
expect "packed = alone, run a" "prefix reuse: " "in all "
if [ -n "$python" ]; then
  passed "${peers[@]}"
  expect "copy on the device" "peer: no torch" "reached  dequantize nf4+dq 11008x4096 to bf16, of the copy: 0.9, at least 0.8" \
    "reached  step tiny 2x20 adamw_torch memory: taken of what was planned: 0.99, at least 0.97" \
    "attention 1x48 2 heads of 64 forward: 0.75 of PyTorch's SDPA" \
    "step tiny 2x20 adamw_torch: 1.25 of PEFT on dense bf16" "step tiny 2x20 adamw_torch: no peer (bitsandbytes)"
fi
mv "$bin/qlora_train_test" "$work/kept"
stand_in "$bin/qlora_train_test" <<< 'echo "a kernel was wrong"; exit 3'
FOUND=wrong check 1 --emulated
expect "laws: FAILED (3)" "a kernel was wrong" "step-tiny: passed"
mv "$work/kept" "$bin/qlora_train_test"

# With a GPU, the fourth of the machine.
CUDA_VISIBLE_DEVICES=3,1 check 0
[[ $file =~ /[0-9-]{10}-NVIDIA-H100-80GB-HBM3.txt$ ]] || fail "the report is $file"
called "cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DQLORA_TESTS=ON -DQLORA_BENCH=ON -DQLORA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90-real" \
  "cmake --build build --target qlora_kernels_test qlora_device_bench qlora_cuda" "qlora_device_bench cuda" \
  "cmake --build build --target qlora_train_test qlora_gpu_bench" "cmake --build build --target qlora_scoring_test"
passed "${sections[@]}" step-7b step-1.1b step-1.1b-offload packed-1.1b step-135m graphs-{off,on,own}-135m \
  step-7b-paged step-13b step-33b graphs-{off,on}-1.1b
expect "NVIDIA H100 80GB HBM3, 580.65.06, 81559 MiB, 9.0" "release 13.0, V13.0.88" "packed = alone, run a" "prefix reuse: " \
  "in all "
sanitized "memcheck: ERROR SUMMARY: 0 errors" "racecheck: RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)" \
  "synccheck: refused or out of time here (1): ========= Error: Target application terminated before its first call" \
  "initcheck: ERROR SUMMARY: 0 errors until it was out of time"
grep -q "All tests passed on cuda$" "$tree/build/memcheck.log" || fail "tests went to another device"
if [ -n "$python" ]; then
  passed "${peers[@]}"
  expect "step 7b 8x512 adamw_torch " "step 135m 8x512 adamw_torch " "step 13b 4x512 adamw_torch " \
    "step 7b 1x512 paged_adamw_32bit offload " "step 1.1b 8x512 adamw_torch offload " "packed 1.1b 8 runs of 1x512 " \
    "reached  step 33b 4x512 adamw_torch memory: planned of what was taken: 1.01, at least 1"
  for work_of in "step 135m 1x256 adamw_torch" "step 1.1b 8x512 adamw_torch"; do
    expect "reached  $work_of, graphs: own choice of the better of off and on: 0.98, at least 0.95"
  done
  for shape in 135m 1.1b; do
    expect "missed   decode $shape 1 sequences, graphs: own choice of the better of off and on: 0.6, at least 0.95"
  done
  [[ $report != *"memory, graphs: own choice"* ]] || fail "memory is no speed"
fi
# The tests that it names are in the sources.
grep -oE '(The device|Every backend|Laws on)[^*]*\*' "$CALLS" | sort -u > "$work/names"
[ "$(wc -l < "$work/names")" = 5 ] || fail "other tests are named than were: $(cat "$work/names")"
while read -r name; do
  grep -rqF --include='*_test.cpp' "TEST_CASE(\"${name%\*}" "$sources/kernels" "$sources/core/train" || fail "no test '$name'"
done < "$work/names"

FOUND=wrong check 1 --seconds 59
sanitized "memcheck: FAILED (9): ERROR SUMMARY: 3 errors" "synccheck: FAILED (42): ERROR SUMMARY: 0 errors" \
  "racecheck: FAILED (0): RACECHECK SUMMARY: 10 hazards displayed (0 errors, 10 warnings)" "initcheck: ERROR SUMMARY: 0 errors"
expect "========= Invalid __global__ read of size 4" "a race" "a test failed"

# What is not there, and what there is no time for.
mkdir "$work/bare"
for tool in dirname realpath; do ln -s "$(command -v $tool)" "$work/bare/"; done
status=0
PATH=$work/bare "$BASH" "$tree/scripts/gpu_check.sh" > "$work/out" 2>&1 || status=$?
[ "$status" = 1 ] || fail "gpu_check without nvidia-smi ended with $status"
grep -qxF "gpu_check: no nvidia-smi, so no NVIDIA driver here" "$work/out" || fail "gpu_check does not say what is missing"
check 0 --seconds 0
expect "configure: left out, no time" "step-33b: left out, no time" "compute-sanitizer initcheck: left out, no time" \
  "graphs at 1.1b: left out, no time" "in all "
echo "gpu_check.sh says what it ran and what failed"
