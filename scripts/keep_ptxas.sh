#!/usr/bin/env bash
# Runs a command of nvcc's (through ccache too) and keeps what ptxas said of registers, stack and spills beside its
# object, as OBJECT.ptxas, for check_ptxas.py. CMake puts it before the compiler of the CUDA plug-in.
#     scripts/keep_ptxas.sh COMMAND... -o OBJECT ...
set -euo pipefail
object=
previous=
for word in "$@"; do
  [ "$previous" != -o ] || object=$word
  previous=$word
done
[ -n "$object" ] || exec "$@"
status=0
"$@" 2> "$object.ptxas" || status=$?
grep -v '^ptxas info\|^    [0-9]* bytes stack frame' "$object.ptxas" >&2 || true
exit "$status"
