#!/usr/bin/env bash
# Test of gpu_check.sh, of the script alone: all of it runs as with --emulated, with stand-ins in the place of cmake and
# of the executables, which print rows as theirs. A section that fails must be said and end in failure.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/path" "$work/build/bin"

stand_in() {  # FILE LINE...: an executable that prints these lines
  local file=$1
  shift
  { echo "#!/bin/sh"; printf "echo '%s'\n" "$@"; } > "$file"
  chmod +x "$file"
}
bin=$work/build/bin
stand_in "$work/path/cmake" "built"
stand_in "$work/path/apt-get" "nothing is installed by a test"
stand_in "$bin/qlora_kernels_test" "All tests passed"
stand_in "$bin/qlora_train_test" "packed = alone, run a                    the same bits, losses differ by 0 at most"
stand_in "$bin/qlora_scoring_test" "prefix reuse: log-probabilities differ by 1e-6 nats at most, 0 flips in 8 answers"
stand_in "$bin/qlora_device_bench" \
  "copy on the device                                 3000 GB/s" \
  "dequantize nf4+dq 11008x4096 to bf16                2.7 TB/s       0.90 of the copy" \
  "attention 1x48 2 heads of 64 forward                  3 TFLOP/s"
# A Python with torch and PEFT, without bitsandbytes.
if python=$(command -v python3); then
  cat > "$work/path/python3" << EOF
#!/bin/sh
case "\$1 \$2" in
  *"gpu_peer.py attention") echo "peer SDPA 1x48 2 heads of 64 forward                  4 TFLOP/s    processor, bf16" ;;
  *"gpu_peer.py step") echo "peer PEFT dense bf16 step tiny 2x20                1000 tokens/s   processor, bf16" ;;
  *gpu_peer.py*) echo "peer: no \$2 in this Python: no row of it" ;;
  *) exec "$python" "\$@" ;;
esac
EOF
  chmod +x "$work/path/python3"
fi
stand_in "$bin/qlora_gpu_bench" \
  "step tiny 2x20 adamw_torch                           1234 tokens/s" \
  "step tiny 2x20 adamw_torch memory                    1000 MiB        of 1010 MiB planned (0.990), its context 0 MiB"

check() {  # EXPECTED_STATUS: how the script ends
  local status=0
  PATH="$work/path:$PATH" bash scripts/gpu_check.sh --emulated --build "$work/build" --out "$work/report.txt" \
    > "$work/out" 2>&1 || status=$?
  [ "$status" = "$1" ] || { cat "$work/out"; echo "gpu_check ended with $status, not $1" >&2; exit 1; }
}
expect() {  # TEXT...: lines of the report
  for text in "$@"; do
    grep -qF -- "$text" "$work/report.txt" || { cat "$work/report.txt"; echo "no '$text' in the report" >&2; exit 1; }
  done
}

check 0
expect "parity: passed" "same-bits: passed" "laws: passed" "packed = alone, run a" "prefix reuse: " "kernels: passed" \
  "step-tiny: passed" "packed-tiny: passed" "cases: passed" "in all "
if command -v python3 > /dev/null; then
  expect "copy on the device" "reached  dequantize nf4+dq 11008x4096 to bf16, of the copy: 0.9, at least 0.8" \
    "reached  step tiny 2x20 adamw_torch memory: taken of what was planned: 0.99, at least 0.97" \
    "peer: no step4bit in this Python: no row of it" \
    "attention 1x48 2 heads of 64 forward: 0.75 of PyTorch's SDPA" \
    "step tiny 2x20 adamw_torch: 1.23 of PEFT on dense bf16" "step tiny 2x20 adamw_torch: no peer (bitsandbytes)"
fi

printf '#!/bin/sh\necho "a kernel was wrong"\nexit 3\n' > "$bin/qlora_train_test"
check 1
expect "laws: FAILED (3)" "a kernel was wrong" "step-tiny: passed"
echo "gpu_check.sh says what it ran and what failed"
