#!/usr/bin/env python3
"""What ptxas said of the plug-in's kernels: registers, stack frames, spills. Fails where one spills registers or keeps
an array on its stack, both of them device memory behind a thread's back, and where it finds no kernel at all.

    scripts/check_ptxas.py FOLDER       of the objects with *.ptxas beside them (keep_ptxas.sh); prints a line an
                                        architecture, and one for every breach
"""
import collections
import pathlib
import re
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
# CUDA's own cosf reduces large angles through an array.
FRAMES = {"6anglesE"}  # as in mangled names
USED = re.compile(r"Used (\d+) registers")


def kernels(report):
    """(architecture, name, frame, spilled, registers) of every kernel of one file's report."""
    name = architecture = frame = spilled = None
    for line in report.read_text().splitlines():
        if found := ENTRY.search(line):
            name, architecture, frame, spilled = found[1], found[2], 0, 0
        elif (found := FRAME.search(line)) and name:
            frame, spilled = int(found[1]), int(found[2]) + int(found[3])
        elif (found := USED.search(line)) and name:
            yield architecture, name, frame, spilled, int(found[1])
            name = None


def main():
    reports = sorted(pathlib.Path(sys.argv[1]).rglob("*.ptxas"))
    counts, most = collections.Counter(), collections.Counter()
    bad = 0
    for report in reports:
        for architecture, name, frame, spilled, registers in kernels(report):
            counts[architecture] += 1
            most[architecture] = max(most[architecture], registers)
            if spilled or frame and not any(allowed in name for allowed in FRAMES):
                bad += 1
                print(f"{report.stem}: {name} for {architecture}: {frame} bytes of stack, {spilled} bytes spilled")
    for architecture, count in sorted(counts.items()):
        print(f"{architecture}: {count} kernels, at most {most[architecture]} registers")
    if not counts:
        print(f"no kernel found in {len(reports)} reports below {sys.argv[1]}")
    sys.exit(1 if bad or not counts else 0)


main()
