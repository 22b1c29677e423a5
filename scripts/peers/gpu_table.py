#!/usr/bin/env python3
"""One table of what scripts/gpu_check.sh has measured, what that is of the peers of the same run, and which goals were
reached.

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


def peers_of(name, unit):
    """(peer, its row) of all that do the work of this row."""
    attention = re.fullmatch(r"attention (.+)", name)
    if attention:
        return [("PyTorch's SDPA", f"peer SDPA {attention[1]}")]
    product = re.fullmatch(r"cuBLAS product (\S+) bf16", name)
    if product:
        return [("PyTorch's", f"peer dense bf16 product {product[1]}")]
    step = re.fullmatch(r"step (\S+ \S+) adamw_torch", name)
    if step and unit == "tokens/s":
        return [("PEFT on dense bf16", f"peer PEFT dense bf16 step {step[1]}"),
                ("bitsandbytes", f"peer PEFT + bitsandbytes step {step[1]}")]
    return []


def beside_peers(rows):
    for name, (_, unit, _) in rows.items():
        for peer, theirs in peers_of(name, unit):
            part = ratio(rows, name, theirs)
            yield f"{name}: " + (f"{part:.3g} of {peer}" if part is not None else f"no peer ({peer})")


def goals(rows):
    """(what, reached, at least) of all that was measured; None: its peer was not."""
    out = []

    def add(what, value, least):
        out.append((what, value, least))

    for name, row in rows.items():
        if name.startswith("dequantize nf4+dq 11008x4096") and share(row) is not None:
            add(f"{name}, of the copy", share(row), 0.80)
        linear = re.match(r"linear 4096x11008 r 64 (\d+) rows forward", name)
        if linear and int(linear[1]) >= 4096 and share(row) is not None:
            add(f"{name}, of dense", share(row), 0.85 if int(linear[1]) < 8192 else 0.90)
        if name.startswith("attention 4x2048 32 heads of 128"):
            add(f"{name}, TFLOP/s", row[0], 180 if name.endswith("forward") else 120)
        if name.endswith(" memory") and PLANNED.search(row[2]):
            part = float(PLANNED.search(row[2])[1])
            add(f"{name}: taken of what was planned", part, 0.97)
            add(f"{name}: planned of what was taken", 1 / part, 1.0)
        if re.fullmatch(r"step 7b \S+ adamw_torch", name):
            add(f"{name}, tokens/s", row[0], 8000)
            for (peer, theirs), least in zip(peers_of(name, row[1]), (1.3, 1.4)):
                add(f"{name}, of {peer}", ratio(rows, name, theirs), least)
    for name, row in rows.items():
        chosen = [rows[choice] for choice in (f"{name}, graphs off", f"{name}, graphs on") if choice in rows]
        if row[1] == "tokens/s" and len(chosen) == 2:
            add(f"{name}, graphs: own choice of the better of off and on", row[0] / max(c[0] for c in chosen), 0.95)
    if "decode 7b 1 sequences" in rows:
        add("decode 7b, tokens/s", rows["decode 7b 1 sequences"][0], 300)
    packed = rows.get("packed 1.1b 8 runs of 1x512")
    if packed and share(packed) is not None:
        add("packed 1.1b, 8 runs of one run of 8x512", share(packed), 0.85)
    return out


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    rows = read(sys.argv[1:])
    for name, (value, unit, note) in rows.items():
        print(f"{name:<52} {value:>10.5g} {unit:<10} {note}".rstrip())
    print("\nbeside peers, in this run")
    print("\n".join(f"  {line}" for line in beside_peers(rows)) or "  none of their rows was measured")
    print("\ngoals (of one H100)")
    found = goals(rows)
    for what, value, least in found:
        how = "no peer" if value is None else "reached" if value >= least else "missed"
        print(f"  {how:<8} {what}: {'' if value is None else f'{value:.4g}, '}at least {least:g}")
    if not found:
        print("  none of their rows was measured")


if __name__ == "__main__":
    main()
