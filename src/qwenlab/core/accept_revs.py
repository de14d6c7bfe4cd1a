"""The verdict on two revisions or experiments: `qwenlab accept videoedit --revs off on`.

The first revision is the control and the second the treatment, both with the arm that they selected
(metrics/<system>/selected.json and .csv). The rules are those of the working tree.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

from qwenlab.core.accept import Arm, Result, judge
from qwenlab.core.errors import UserError
from qwenlab.core.rules import WINS, load_claim


def _metrics(a: str, b: str, file: str, root: Path) -> tuple[dict, dict]:
    """Flat numbers of `file` at both revisions, by DVC itself, which also knows the names of experiments."""
    if not (root / ".dvc").is_dir():
        raise UserError(f"{root.resolve()}: not the root of a DVC repository; revisions can be judged only there.")
    for rev in (a, b):
        if rev.startswith("-"):
            raise UserError(f"revision {rev!r}: expected a Git revision or the name of an experiment.")
    command = [sys.executable, "-m", "dvc", "metrics", "diff", a, b, "--all", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = errors[0].removeprefix("ERROR: ").rstrip(".") if errors else "dvc metrics diff failed"
        raise UserError(f"revisions {a!r} and {b!r}: {reason}; `dvc exp list` and `git log` show what there is.")
    found = json.loads(done.stdout or "{}").get(file)
    if not found:
        raise UserError(f"revisions {a!r} and {b!r}: {file} is in neither of them; `dvc repro` writes it.")
    # DVC leaves the old value out when only the new revision has the key, and the other way round.
    old, new = ({key: pair[side] for key, pair in found.items() if side in pair} for side in ("old", "new"))
    return old, new


def _rows(rev: str, file: str, root: Path) -> list[dict[str, str]]:
    """Rows of a CSV at a revision; none when it is not there, so that what reads it fails."""
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        with dvc.api.open(file, repo=str(root.resolve()), rev=rev) as text:
            return list(csv.DictReader(text))
    except (DvcException, FileNotFoundError):
        return []


def judge_revs(system: str, a: str, b: str, root: Path | None = None) -> tuple[list[Result], list[str]]:
    """Judge revision `b` against revision `a`.

    Returns:
        The results, and a sentence for each rule that two selected arms cannot answer.

    Raises:
        UserError: on an unknown revision or experiment, or one without metrics of this system.
    """
    root, claim = root or Path(), load_claim(system, root)
    file, skipped, rules = f"metrics/{system}/selected", [], []
    for rule in claim.rules:
        if (rule.arm, rule.control_arm) == (claim.treatment, claim.control):
            rules.append(rule)
        else:
            skipped.append(f"{rule.metric} {rule.rule}: not judged; it asks for {rule.arm} against {rule.control_arm}.")
    if not rules:
        raise UserError(f"{system}: every rule names its arms, so two revisions cannot be judged.")
    old, new = _metrics(a, b, f"{file}.json", root)
    tables = any(rule.kind in WINS for rule in rules)
    rows = [_rows(rev, f"{file}.csv", root) if tables else [] for rev in (a, b)]
    return judge(rules, {claim.control: Arm(old, rows[0]), claim.treatment: Arm(new, rows[1])}), skipped
