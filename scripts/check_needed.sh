#!/usr/bin/env bash
# Fails if a program or library asks the dynamic linker for a library of CUDA's (driver, runtime, cuBLAS): those are
# found when the program runs, or not.
#     scripts/check_needed.sh FILE...
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 PROGRAM_OR_LIBRARY..." >&2; exit 2; }
for file in "$@"; do
  needed=$(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  [ -n "$needed" ] || { echo "$file: no library needed at all? Not a dynamic file"; exit 1; }
  if grep -E '^lib(cuda|cudart|cublas|cublasLt|nvidia|nvrtc|nccl)' <<< "$needed"; then
    echo "$file needs it before it starts" >&2
    exit 1
  fi
  echo "$file: $(wc -w <<< "$needed") libraries, none of CUDA's"
done
