#!/usr/bin/env python3
"""Can the tests fail? Plants each bug of tests/planted in a scratch copy of HEAD, builds it and runs
the tests: every bug must be caught. Prints which test caught which, as the table of docs/testing.md.

    tools/planted_bugs.py [--write] [NAME...]

A patch's `tests:` names where it should be caught (a pattern of ctest); those run first, and the
whole suite only if they all pass. --write puts the table, or the rows of NAME..., into docs/testing.md. The scratch copy and
its build stay in ${TMPDIR:-/tmp}/kvasir-planted, so that the next run is faster.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRATCH = pathlib.Path(tempfile.gettempdir()) / "kvasir-planted"
BEGIN, END = "<!-- planted bugs: begin -->\n", "<!-- planted bugs: end -->\n"


def run(*command, check=True, cwd=SCRATCH, limit=900):
    """rc and output; what takes longer than `limit` seconds is killed with all that it started."""
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        try:
            rc = child.wait(limit)
        except subprocess.TimeoutExpired:
            rc = 124
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        out.seek(0)
        text = out.read()
    if check and rc != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{text[-3000:]}")
    return rc, text


def update(fresh):
    """Makes SCRATCH equal to `fresh`, but for build/. Only what differs is written, so that only
    that is built again."""
    for old in SCRATCH.rglob("*"):
        name = old.relative_to(SCRATCH)
        if name.parts[0] != "build" and old.is_file() and not (fresh / name).exists():
            old.unlink()
    for new in fresh.rglob("*"):
        old = SCRATCH / new.relative_to(fresh)
        if new.is_dir():
            old.mkdir(exist_ok=True)
        elif not old.exists() or old.read_bytes() != new.read_bytes():
            shutil.copy(new, old)


def copy_of_head():
    SCRATCH.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    with tempfile.TemporaryDirectory() as fresh:
        subprocess.run(["tar", "x", "-C", fresh], input=archive.stdout, check=True)
        update(pathlib.Path(fresh))
    run("cmake", "--preset", "dev")
    run("cmake", "--build", "build", "--", "--quiet", limit=3600)


def failed_tests(pattern):
    """Names of the tests that failed. A bug may also keep tests from ending: a pattern has three
    minutes and the suite fifteen, which is many times what they take."""
    command = ["ctest", "--test-dir", "build", "-j", "2", "--stop-on-failure"]
    rc, out = run(*command, *(["-R", pattern] if pattern else []), check=False,
                  limit=180 if pattern else 900)
    names = re.findall(r"Test +#\d+: (\S+) .*\*\*\*(?:Failed|Exception|Timeout|Not Run)", out)
    names = sorted({re.sub(r"^.*/(\w+\.\w+)(/.*)?$", r"\1", n) for n in names})
    return names or (["no end"] if rc == 124 else [])


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    patches = sorted((ROOT / "tests" / "planted").glob("*.patch"))
    if names:
        patches = [p for p in patches if p.stem in names]
    if not patches:
        sys.exit("no such patch in tests/planted")
    copy_of_head()
    rows, missed = [], []
    for patch in patches:
        text = patch.read_text()
        shape, tests = re.match(r"shape: (.*)\ntests: (.*)\n", text).groups()
        run("patch", "-p1", "--quiet", "-i", str(patch))
        try:
            rc, out = run("cmake", "--build", "build", "--", "--quiet", check=False, limit=3600)
            caught = ["(does not build)"] if rc != 0 else failed_tests(tests) or failed_tests("")
        finally:
            run("patch", "-p1", "--quiet", "-R", "-i", str(patch))
        if rc != 0:  # the patch needs to be brought up to date
            print(f"{patch.stem} does not build:\n{out[-3000:]}", flush=True)
        if rc != 0 or not caught:
            missed.append(patch.stem)
        shown = ", ".join(caught[:2]) + (f" and {len(caught) - 2} more" if len(caught) > 2 else "")
        rows.append(f"| {patch.stem} | {shape} | {shown or '**nobody**'} |")
        print(rows[-1], flush=True)
    if "--write" in sys.argv and not missed:
        doc = ROOT / "docs" / "testing.md"
        before, rest = doc.read_text().split(BEGIN)
        table, after = rest.split(END)
        head, old = table.splitlines()[:2], table.splitlines()[2:] if names else []
        name_of = lambda row: row.split(" | ")[0]
        known = {p.stem for p in (ROOT / "tests" / "planted").glob("*.patch")}
        by_name = {name_of(row): row for row in old + rows if name_of(row)[2:] in known}
        doc.write_text(before + BEGIN + "\n".join(head + [by_name[n] for n in sorted(by_name)]) + "\n" + END + after)
    print(f"{len(rows) - len(missed)} of {len(rows)} planted bugs were caught"
          + (": missed " + ", ".join(missed) if missed else ""))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
