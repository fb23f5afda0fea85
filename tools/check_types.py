#!/usr/bin/env python3
"""Fails if two files define a type of one name that both are visible to the linker: of the functions
that the compiler makes for them (copies, destructors) it keeps one, whichever the object is."""
import collections
import pathlib
import re
import sys

SOURCES = pathlib.Path(__file__).resolve().parent.parent / "src"
TYPE = re.compile(r"(?:template <.*> )?(?:struct|class|enum class|enum|union) (\w+)(?: final)?(?: :[^;]*)? ?\{")

found = collections.defaultdict(set)
for path in [*SOURCES.rglob("*.h"), *SOURCES.rglob("*.cc")]:
    if path.name.endswith("-inl.h"):  # included inside a namespace of whoever includes it
        continue
    spaces = []  # the namespaces around the line; "": of this file alone
    for line in path.read_text().splitlines():
        if opened := re.match(r"namespace ?([\w:]*) ?\{", line):
            spaces.append(opened[1])
        elif line.startswith("}  // namespace"):
            spaces.pop()
        elif (type_ := TYPE.match(line)) and "" not in spaces:
            found["::".join([*spaces, type_[1]])].add(str(path.relative_to(SOURCES.parent)))
twice = {name: paths for name, paths in found.items() if len(paths) > 1}
for name, paths in sorted(twice.items()):
    print(f"{name} is defined in {' and in '.join(sorted(paths))}")
sys.exit(1 if twice or not found else 0)
