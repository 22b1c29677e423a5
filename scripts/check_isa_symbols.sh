#!/usr/bin/env bash
# Wide instructions stay inside their regions. Disassembles objects or archives and fails
#   - if a VEX or EVEX instruction stands in a function outside the namespaces qlora::avx2, avx512, avx512bf16, emulated512: such
#     a function, when shared (a template, an inline), could be chosen by the linker for the baseline machine too;
#   - if an AVX-512 instruction stands in a function of avx2 or emulated512;
#   - if an instruction on the tiles of AMX stands outside avx512bf16;
#   - if no wide function was found at all (then it looked at the wrong files).
#     scripts/check_isa_symbols.sh FILE...
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 OBJECT_OR_ARCHIVE..." >&2; exit 2; }
objdump -d --no-show-raw-insn "$@" | awk '
  /^[0-9a-f]+ <.*>:$/ {
    name = substr($2, 2, length($2) - 3)
    narrow = name ~ /^_Z+NK?5qlora(4avx2|11emulated512)/
    region = narrow || name ~ /^_Z+NK?5qlora(6avx512|10avx512bf16)/
    next
  }
  # "  1a:  vmulps ..." - mnemonics with v that are not vector instructions belong to virtual machines and segments.
  $2 ~ /^v[a-z]/ && $2 !~ /^(verr|verw|vm(call|mcall|run|load|save|launch|resume|read|write|ptrld|ptrst|clear|xoff|xon|func))/ {
    if (region) wide[name] = 1
    else escaped[name] = $2
    if (narrow && /%zmm|%[xy]mm(1[6-9]|2[0-9]|3[01])|%k[0-7]/) wrong[name] = $2
  }
  $2 ~ /^(tile|tdp|ldtilecfg|sttilecfg)/ && name !~ /^_Z+NK?5qlora10avx512bf16/ { escaped[name] = $2 }
  END {
    for (f in wide) found++
    for (f in escaped) { print "outside its region: " f " (" escaped[f] ")"; bad++ }
    for (f in wrong) { print "AVX-512 in an AVX2 function: " f " (" wrong[f] ")"; bad++ }
    print found + 0 " functions with wide instructions, " bad + 0 " in the wrong place"
    exit (bad > 0 || found == 0)
  }'
