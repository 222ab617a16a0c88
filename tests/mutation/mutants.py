"""Mutation testing: change the code in one place, and see that a test fails.

    python tests/mutation/mutants.py --minutes 60 --out FOLDER

cosmic-ray says what can be changed and changes it, in a copy of the tree; a sample is drawn by the seed, and is worked
through until the time is over. A mutant meets the tests that run the changed line, by the contexts that coverage
records once. One that survives needs a test, or an entry with a reason in survivors.toml; status 1 where it has
neither.
"""
# pyright: reportMissingImports=false
# cosmic-ray and coverage are there in nightly runs alone

from __future__ import annotations

import argparse
import ast
import datetime
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import MutationSpec, TestOutcome
from coverage import CoverageData


ROOT = Path(__file__).resolve().parents[2]
KNOWN = Path(__file__).with_name("survivors.toml")
MUTATED = (
    "revdeq",
    *("verify/gate.py", "verify/judge", "verify/criteria.py", "verify/reading.py", "verify/checks", "verify/ledger.py"),
    *("verify/result.py", "verify/result_file.py", "verify/json_file.py", "verify/known_failures.py", "verify/plan.py"),
)
TESTS = ("tests/revdeq", "tests/verify")
# What changes nothing, or what Python leaves open: identity for equality and the other way round, `|` between types.
EQUIVALENT = re.compile(
    r"Operator_(Is|IsNot)_(?!Is)|_(Is|IsNot)$(?<!Is_IsNot)(?<!IsNot_Is)|BinaryOperator_BitOr|ExceptionReplacer"
)
SECONDS = 600


def main() -> int:
    """Work through a sample; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    today = datetime.date.today().toordinal()
    parser.add_argument("--seed", type=int, default=today, help="of the sample; another one every day if not said")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no other mutant is tried")
    parser.add_argument("--most", type=int, help="mutants to try at most")
    parser.add_argument("--out", type=Path, required=True, help="folder of the copy, the coverage and mutants.json")
    parser.add_argument("--files", nargs="*", default=MUTATED, help="files and folders to mutate")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="files and folders of the tests")
    options = parser.parse_args()
    copy = copied(options.out.resolve())
    os.chdir(copy)
    contexts = covering(options.tests)
    deadline = time.monotonic() + 60 * options.minutes
    found: list[dict[str, str]] = []
    for spec in sample(options.files, options.seed)[: options.most]:
        if time.monotonic() > deadline:
            break
        found.append(tried(spec, contexts))
        print("{outcome:8} {file}:{line}: {after}".format(**found[-1]), flush=True)
    (copy.parent / "mutants.json").write_text(json.dumps({"seed": options.seed, "mutants": found}, indent=1) + "\n")
    return judged(found)


def copied(out: Path) -> Path:
    """Copy what git tracks, and what it does not ignore, to a fresh folder."""
    copy = out / "tree"
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def covering(tests: list[str]) -> dict[str, dict[int, list[str]]]:
    """Run the tests once; return for each file and line the tests that ran it, "" for an import.

    The record of an earlier run in the same folder is taken up, since it takes as long as all tests do.
    """
    record, failed = Path("../coverage").resolve(), Path("../failed.json").resolve()
    if not record.exists():
        settings = Path("../coveragerc").resolve()
        settings.write_text(f"[run]\ndata_file = {record}\nsource =\n    revdeq\n    verify\nrelative_files = true\n")
        covered = ["--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report="]
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "auto", *tests, *covered], check=False)
        lost = Path(".pytest_cache/v/cache/lastfailed")
        failed.write_text(lost.read_text() if lost.exists() else "{}")
    # A test that fails without a mutant, because it is watched or in a copy, kills none.
    left_out = set(json.loads(failed.read_text()))
    print(f"{len(left_out)} tests fail without a mutant and are left out: {', '.join(sorted(left_out))}", flush=True)
    data = CoverageData(str(record))
    data.read()
    return {
        name: {
            line: [test for test in (context.rpartition("|")[0] for context in contexts) if test not in left_out]
            for line, contexts in data.contexts_by_lineno(name).items()
        }
        for name in data.measured_files()
    }


def sample(files: list[str], seed: int) -> list[MutationSpec]:
    """One mutation of every place, in an order that the seed draws."""
    places: dict[tuple[Path, tuple[int, int]], list[MutationSpec]] = {}
    for spec in mutations(files):
        places.setdefault((spec.module_path, spec.start_pos), []).append(spec)
    draw = random.Random(seed)
    chosen = [draw.choice(specs) for specs in places.values()]
    draw.shuffle(chosen)
    return chosen


def mutations(files: list[str]) -> Iterator[MutationSpec]:
    """All mutations of some files that may change anything."""
    for name in files:
        path = Path(name)
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            left_out = set(unseen(ast.parse(module.read_text())))
            for item in _all_work_items([module], {}):
                (spec,) = item.mutations
                if not EQUIVALENT.search(spec.operator_name) and spec.start_pos not in left_out:
                    yield spec


def unseen(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """The places of what is for readers: annotations, overloads, and the examples that messages give."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "example":
            yield node.value.lineno, node.value.col_offset
        notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.FunctionDef):
            notes += [name for name in node.decorator_list if isinstance(name, ast.Name) and name.id == "overload"]
        for note in notes:
            if isinstance(note, ast.AST):
                yield from ((part.lineno, part.col_offset) for part in ast.walk(note) if isinstance(part, ast.expr))


def tried(spec: MutationSpec, contexts: dict[str, dict[int, list[str]]]) -> dict[str, str]:
    """Change the code in one place and run the tests that meet it."""
    ran = contexts.get(str(spec.module_path), {})
    lines = range(spec.start_pos[0], spec.end_pos[0] + 1)
    met = {test for line in lines for test in ran.get(line, ()) if test}
    # What runs at import, a constant or a default, is met by whatever meets the module.
    met = met or {test for tests in ran.values() for test in tests if test}
    arguments = Path("../tests.txt").resolve()
    arguments.write_text("\n".join(sorted(met)))
    command = f"{sys.executable} -m pytest -x -q -n 0 -p no:cacheprovider -p no:randomly @{arguments}"
    result = mutate_and_test([spec], command if met else "true", SECONDS)
    survived = "survived" if met else "unmet"
    return {
        "outcome": survived if result.test_outcome is TestOutcome.SURVIVED else "killed",
        "file": str(spec.module_path),
        "line": str(spec.start_pos[0]),
        "operator": spec.operator_name.removeprefix("core/"),
        "before": changed(result.diff or "", "-"),
        "after": changed(result.diff or "", "+"),
    }


def changed(diff: str, sign: str) -> str:
    """What a diff takes away or adds, on one line."""
    return " ".join(line[1:].strip() for line in diff.splitlines() if line[:1] == sign and line[:3] != 3 * sign)


def judged(found: list[dict[str, str]]) -> int:
    """Print the score and what survived without a reason; return the exit status."""
    with KNOWN.open("rb") as file:
        reasons = {(entry["file"], entry["before"], entry["after"]) for entry in tomllib.load(file)["survivor"]}
    alive = [one for one in found if one["outcome"] != "killed"]
    open_ = [one for one in alive if (one["file"], one["before"], one["after"]) not in reasons]
    killed = len(found) - len(alive)
    print(
        f"{killed} of {len(found)} mutants killed, {len(alive) - len(open_)} have a reason, {len(open_)} have neither."
    )
    for one in open_:
        print("{outcome} {file}:{line} ({operator})\n  - {before}\n  + {after}".format(**one))
    return 1 if open_ or not found else 0


if __name__ == "__main__":
    sys.exit(main())
