#!/usr/bin/env python3
"""Checks the house rules that a compiler does not: includes go strictly down, no file is longer than 500 lines, and no
two headers define different types of one name in one namespace.

    scripts/check_layers.py [ROOT]      prints every breach, exits with their number (at most 100)
"""
import pathlib
import re
import sys

# Lowest first. A file may include its own level and what its level lists.
LEVELS = {
    "core/base": [],
    "core/text": ["core/base"],
    "results": ["core/base"],
    "kernels": ["core/base"],
    "core/tensor": ["kernels"],
    "core/tape": ["core/tensor"],
    "core/quant": ["core/tape"],
    "core/io": ["core/quant"],
    "core/ops": ["core/io"],
    "core/models": ["core/ops"],
    "core/lora": ["core/models"],
    "core/train": ["core/lora", "core/text"],
    "datasets": ["core/base", "core/text"],
    "eval": ["datasets", "core/train"],
    "experiments": ["eval", "results"],
}
CAP = 500


def below(level, seen=None):
    seen = set() if seen is None else seen
    for lower in LEVELS[level]:
        if lower not in seen:
            seen.add(lower)
            below(lower, seen)
    return seen


def level_of(path):
    return next((l for l in sorted(LEVELS, key=len, reverse=True) if path.startswith(l + "/")), None)


def types_of(lines):
    """The types that a header defines in named namespaces, with their namespaces."""
    namespace = None
    for line in lines:
        opened = re.match(r"namespace ([\w:]*) ?\{", line)
        if opened:
            namespace = opened[1]
        defined = re.match(r"(?:template <.*> )?(?:struct|class|enum|enum class) (\w+)(?: final)?(?: :.*)?(?: \{|$)", line)
        if defined and namespace:
            yield f"{namespace}::{defined[1]}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    breaches = []
    defined = {}
    for top in ("core", "kernels", "experiments", "eval", "datasets", "results", "scripts"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in (".h", ".cpp", ".cu", ".cuh", ".py", ".sh"):
                continue
            name = file.relative_to(root).as_posix()
            lines = file.read_text(encoding="utf-8").splitlines()
            if len(lines) > CAP:
                breaches.append(f"{name}: {len(lines)} lines, at most {CAP}")
            if file.suffix == ".h":
                for type_name in types_of(lines):
                    first = defined.setdefault(type_name, name)
                    if first != name:
                        breaches.append(f"{name}: {type_name} is another type in {first}")
            level = level_of(name)
            if level is None:
                continue
            allowed = below(level) | {level}
            for number, line in enumerate(lines, 1):
                include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                if not include:
                    continue
                target = level_of(include[1])
                if target is None:
                    breaches.append(f"{name}:{number}: \"{include[1]}\" is not given from the root of the tree")
                elif target not in allowed:
                    breaches.append(f"{name}:{number}: {level} may not include {target} (\"{include[1]}\")")
    for breach in breaches:
        print(breach)
    print(f"{len(breaches)} breaches")
    return min(len(breaches), 100)


if __name__ == "__main__":
    sys.exit(main())
