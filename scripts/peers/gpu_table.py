#!/usr/bin/env python3
"""One table of what scripts/gpu_check.sh has measured, and which goals were reached.

    gpu_table.py ROWS...      files of rows: name, value, unit, note in columns; other lines are left aside

The goals are those for one H100 SXM; another device is measured against them too.
"""
import re
import sys

ROW = re.compile(r"^(\S.*?)\s{2,}([0-9.e+-]+) (\S+)(?:\s+(.*))?$")
SHARE = re.compile(r"^([0-9.]+) of ")
PLANNED = re.compile(r"planned \(([0-9.]+)\)")


def read(paths):
    rows = {}
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                found = ROW.match(line.rstrip())
                if found:
                    rows[found[1]] = (float(found[2]), found[3], found[4] or "")
    return rows


def share(row):
    found = SHARE.match(row[2])
    return float(found[1]) if found else None


def ratio(rows, ours, theirs):
    return rows[ours][0] / rows[theirs][0] if ours in rows and theirs in rows else None


def goals(rows):
    """(what, reached, at least) of all that was measured."""
    out = []

    def add(what, value, least):
        if value is not None:
            out.append((what, value, least))

    for name, row in rows.items():
        if name.startswith("dequantize nf4+dq 11008x4096"):
            add(f"{name}, of the copy", share(row), 0.80)
        linear = re.match(r"linear 4096x11008 r 64 (\d+) rows forward", name)
        if linear and int(linear[1]) >= 4096:
            add(f"{name}, of dense", share(row), 0.85 if int(linear[1]) < 8192 else 0.90)
        if name.startswith("attention 4x2048 32 heads of 128"):
            add(f"{name}, TFLOP/s", row[0], 180 if name.endswith("forward") else 120)
        if name.endswith(" memory") and PLANNED.search(row[2]):
            part = float(PLANNED.search(row[2])[1])
            add(f"{name}: taken of what was planned", part, 0.97)
            add(f"{name}: planned of what was taken", 1 / part, 1.0)
    steps = [name for name, row in rows.items() if re.fullmatch(r"step 7b \S+ adamw_torch", name) and row[1] == "tokens/s"]
    for name in steps:
        add(f"{name}, tokens/s", rows[name][0], 8000)
        size = name.split()[2]
        add(f"{name}, of PEFT on dense bf16", ratio(rows, name, f"peer PEFT dense bf16 step 7b {size}"), 1.3)
        add(f"{name}, of bitsandbytes", ratio(rows, name, f"peer PEFT + bitsandbytes step 7b {size}"), 1.4)
    if "decode 7b 1 sequences" in rows:
        add("decode 7b, tokens/s", rows["decode 7b 1 sequences"][0], 300)
    if "packed 1.1b 8 runs of 1x512" in rows:
        add("packed 1.1b, 8 runs of one run of 8x512", share(rows["packed 1.1b 8 runs of 1x512"]), 0.85)
    return out


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    rows = read(sys.argv[1:])
    for name, (value, unit, note) in rows.items():
        print(f"{name:<52} {value:>10.5g} {unit:<10} {note}".rstrip())
    print("\ngoals (of one H100)")
    found = goals(rows)
    for what, value, least in found:
        print(f"  {'reached' if value >= least else 'missed ':<8} {what}: {value:.4g}, at least {least:g}")
    if not found:
        print("  none of their rows was measured")


if __name__ == "__main__":
    main()
