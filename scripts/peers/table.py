#!/usr/bin/env python3
"""Prints the rows of `qlora bench --json` reports as one Markdown table.

    table.py REPORT.json... [--cells]      --cells: every shape of the products, not their means alone
"""
import json
import pathlib
import sys


def number(value):
    return "" if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def wanted(row, cells):
    """Cells of the products are shown as their means and their worst."""
    product = row["name"].startswith(("nf4_gemm", "dense_gemm"))
    return cells or not product or "geomean" in row["name"] or "/m" not in row["name"]


def worst_cells(rows):
    worst = {}
    for row in rows:
        family = row["name"].split("/")
        if row["ratio"] is not None and row["name"].startswith(("nf4_gemm", "dense_gemm")) and "/m" in row["name"]:
            key = "/".join(family[:3] + ["worst of its cells", family[-1]])
            if key not in worst or row["ratio"] < worst[key]["ratio"]:
                worst[key] = dict(row, name=f"{key}: {family[3]} {family[4]}")
    return list(worst.values())


def main():
    files = [a for a in sys.argv[1:] if a != "--cells"]
    for file in files:
        report = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
        peaks = "; ".join(f"{n} thread{'s' if n != '1' else ''}: {p['f32_flops'] / 1e9:.0f} GFLOP/s f32, "
                          + (f"{p['bf16_flops'] / 1e9:.0f} GFLOP/s bf16, " if p["bf16_flops"] else "no bf16, ")
                          + (f"{p['amx_flops'] / 1e9:.0f} GFLOP/s bf16_amx, " if p.get("amx_flops") else "")
                          + f"{p['read_bytes_per_s'] / 1e9:.1f} GB/s read" for n, p in report["peaks_by_threads"].items())
        print(f"{report['program']}; {report['cpu']}; backend {report['backend']}; load average {report['load_at_end']:.1f} "
              f"at the end{'; QUICK' if report['quick'] else ''}\npeaks of the run: {peaks}\n")
        print("| row | threads | ours | peer | unit | ratio | spread | goal | met | against, notes |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        rows = [r for r in report["rows"] if wanted(r, "--cells" in sys.argv)] + worst_cells(report["rows"])
        for r in rows:
            goal, met = "", ""
            if r["goal"] is not None:
                goal = ("<= " if r["lower_is_better"] else ">= ") + f"{r['goal']:.3g}"
                if r["ratio"] is not None:
                    better = r["ratio"] <= r["goal"] if r["lower_is_better"] else r["ratio"] >= r["goal"]
                    met = "yes" if better else "NO"
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
            spread = f"{100 * r['spread']:.0f}%" if r["ours"] is not None or r["ratio"] is not None else ""
            print(f"| {r['name']} | {r['threads']} | {number(r['ours'])} | {number(r['peer'])} | {r['unit']} | {ratio} | "
                  f"{spread} | {goal} | {met} | {'; '.join(t for t in (r['against'], r['note']) if t)} |")
        print()


if __name__ == "__main__":
    main()
