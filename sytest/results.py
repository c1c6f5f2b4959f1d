#!/usr/bin/env python3
"""Compares a SyTest run with what is committed.

  results.py compare results.tap     what changed; status 1 if something that passed before fails now
  results.py accept results.tap      writes results.txt anew from a whole run
  results.py areas results.tap       failures, grouped by the test files' folders (SYTEST_DIR is needed)

results.txt holds one line for each test: `pass`, `fail` or `skip`, a tab and the name. expected.txt holds the names
that a Matrix 1.18 server without room versions 1 to 5 passes: the goal. exceptions.txt says of each test that does not
pass why.
"""
import collections
import os
import pathlib
import re
import sys

# How many newly passing tests are named.
MAX_SHOWN = 40

HERE = pathlib.Path(__file__).parent
LINE = re.compile(
    r"^(not )?ok \d+ (?:\(expected fail\) )?(.*?)(?: \(\d+ subtests\))?(?: # (skip|TODO)\b ?(.*))?$"
)
# The servers' ports and other accidents of one run stand in some names.
ACCIDENT = re.compile(r"127\.0\.0\.1:\d+")


def read_tap(path):
    """Outcome by name; a test that ran more than once counts as its worst."""
    rank = {"fail": 0, "pass": 1, "skip": 2}
    results = {}
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        found = LINE.match(line)
        if not found:
            continue
        failed, name, mark, _ = found.groups()
        # SyTest prints a skipped test as "ok".
        outcome = "skip" if mark == "skip" else "fail" if failed else "pass"
        name = ACCIDENT.sub("HOST", name)
        results[name] = min(outcome, results.get(name, outcome), key=rank.get)
    return results


def read_committed():
    path = HERE / "results.txt"
    if not path.exists():
        return {}
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    return {name: outcome for outcome, name in (line.split("\t", 1) for line in lines)}


def exceptions():
    """Why a test does not pass, by name."""
    lines = (HERE / "exceptions.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines if line and not line.startswith("#"))


def expected():
    return set((HERE / "expected.txt").read_text(encoding="utf-8").splitlines())


def count(results):
    counted = collections.Counter(results.values())
    goal = expected()
    reached = sum(results.get(name) == "pass" for name in goal)
    return f"{counted['pass']} pass, {counted['fail']} fail, {counted['skip']} skip; of the goal {reached} of {len(goal)}"


def compare(path):
    now, before = read_tap(path), read_committed()
    print(count(now))
    worse = sorted(name for name, was in before.items() if was == "pass" and now.get(name) == "fail")
    better = sorted(name for name, is_now in now.items() if is_now == "pass" and before.get(name) != "pass")
    for name in worse:
        print(f"WORSE   {name}")
    for name in better[:MAX_SHOWN]:
        print(f"better  {name}")
    known = exceptions()
    for name in sorted(name for name, is_now in now.items() if is_now != "pass" and name not in known):
        print(f"NO REASON in exceptions.txt  {name}")
    for name in sorted(name for name in known if now.get(name) == "pass"):
        print(f"passes, though exceptions.txt names it  {name}")
    if len(better) > MAX_SHOWN:
        print(f"better  and {len(better) - MAX_SHOWN} more")
    return 1 if worse else 0


def accept(path):
    results = read_tap(path)
    if len(results) < 700:
        sys.exit(f"only {len(results)} tests: this is no whole run")
    lines = [f"{outcome}\t{name}" for name, outcome in sorted(results.items())]
    head = f"# {count(results)}\n"
    (HERE / "results.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    print(count(results))
    return 0


def folders():
    """The test file of each name, found in SyTest's sources."""
    where = {}
    root = pathlib.Path(os.environ["SYTEST_DIR"]) / "tests"
    for file in sorted(root.rglob("*.pl")):
        text = file.read_text(encoding="utf-8", errors="replace")
        for name in re.findall(r"(?:test|multi_test)\s*\(?\s*[\"'](.+?)[\"']\s*,", text):
            where[name] = file.relative_to(root).as_posix()
    return where


def areas(path):
    where, grouped = folders(), collections.defaultdict(list)
    goal = expected()
    for name, outcome in read_tap(path).items():
        if outcome == "fail":
            grouped[where.get(name, "?")].append(("* " if name in goal else "  ") + name)
    for file in sorted(grouped):
        print(f"\n{file}: {len(grouped[file])}")
        print("\n".join(sorted(grouped[file])))
    return 0


if __name__ == "__main__":
    actions = {"compare": compare, "accept": accept, "areas": areas}
    if len(sys.argv) != 3 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    sys.exit(actions[sys.argv[1]](sys.argv[2]))
