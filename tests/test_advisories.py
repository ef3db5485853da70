""".ci/advisories, with a pip-audit that reports what the test says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PILLOW = {"pillow": [{"id": "GHSA-aaaa-bbbb-cccc", "aliases": ["CVE-2026-1"], "description": "made up"}]}

PIP_AUDIT = """
import json, pathlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
text = pathlib.Path(arguments[arguments.index("-r") + 1]).read_text()
with open(here / "calls", "a") as calls:
    calls.write(json.dumps([arguments, text]) + "\\n")
reported = json.loads((here / "reported").read_text())
if reported is None:
    sys.exit("no network")
packages = [line.split()[0].split("==") for line in text.splitlines()]
found = [{"name": n.lower(), "version": v, "vulns": reported.get(n.lower(), [])} for n, v in packages if n != "h11"]
lost = [{"name": n, "skip_reason": "lost"} for n, _ in packages if n == "h11"]
kept = [{"name": n, "version": v, "vulns": []} for n, v in packages if n == "h11"]
print(json.dumps({"dependencies": found + (lost if "lost" in reported else kept), "fixes": []}))
sys.exit(1 if reported else 0)
"""


@pytest.fixture
def advisories(tmp_path):
    """Run .ci/advisories where pip-audit reports {package: advisories}: (status, words, calls)."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\n{PIP_AUDIT}")
    program.chmod(0o755)

    def run(reported, answers="", **env):
        (tmp_path / "reported").write_text(json.dumps(reported))
        (tmp_path / "calls").write_text("")
        (tmp_path / ".ci" / "advisories.txt").write_text(f"# a comment\n\n{answers}")
        env = {**os.environ, "PIP_AUDIT": str(program), **env}
        done = subprocess.run(
            [sys.executable, tmp_path / ".ci" / "advisories"], env=env, text=True, capture_output=True, timeout=60
        )
        calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, calls

    return run


def test_every_locked_package_is_asked_for_and_pytorch_at_its_pin(advisories):
    status, words, calls = advisories({})
    assert status == 0, words
    asked = [line.split()[0] for _, text in calls for line in text.splitlines()]
    locks = "".join(path.read_text() for path in (ROOT / ".ci" / "locks").glob("*.txt"))
    pins = set(re.findall(r"^[\w.-]+==[^\s;]+", locks, re.MULTILINE))
    torch = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
    assert sorted(asked) == sorted(pins | {torch})
    assert len(pins) > 200
    assert any(pin.startswith("colorama==") for pin in pins)  # of another system, and asked for all the same


def test_nothing_is_installed_to_ask_and_hashes_are_held(advisories):
    _, _, calls = advisories({}, OSV_URL="http://127.0.0.1:9/v1/query")
    assert all("--disable-pip" in arguments and "http://127.0.0.1:9/v1/query" in arguments for arguments, _ in calls)
    for arguments, text in calls:
        assert ("--require-hashes" in arguments) == ("--hash=sha256:" in text)
        names = [line.split("==")[0] for line in text.splitlines()]
        assert len(names) == len(set(names))  # pip-audit takes a package once
    assert [text.split("==")[0] for _, text in calls if "--hash" not in text] == ["torch"]


def test_an_advisory_without_an_answer_fails(advisories):
    status, words, _ = advisories(PILLOW)
    assert status == 1
    assert re.search(r"pillow \S+: CVE-2026-1 GHSA-aaaa-bbbb-cccc: made up", words)


@pytest.mark.parametrize("name", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-1"])
def test_an_answer_by_any_of_its_ids_passes(advisories, name):
    status, words, _ = advisories(PILLOW, f"{name} Pillow nobody opens such files here\n")
    assert (status, "1 advisories, all answered" in words) == (0, True)


@pytest.mark.parametrize(
    ("reported", "answer", "message"),
    [
        ({}, "CVE-2026-1 pillow nobody opens such files", "answers CVE-2026-1 of pillow, which is no longer reported"),
        (PILLOW, "CVE-2026-1 torch nobody opens such files", "pillow .*made up"),  # another package's
        (PILLOW, "CVE-2026-1 pillow", "'CVE-2026-1 pillow' is not an id, a package and why"),
        (None, "", "pip-audit could not ask for advisories: no network"),
        ({"lost": []}, "", "pip-audit left out h11"),
    ],
)
def test_a_stale_or_wrong_answer_fails_and_so_does_a_question_not_asked(advisories, reported, answer, message):
    status, words, _ = advisories(reported, answer)
    assert status == 1
    assert re.search(message, words), words


def test_the_workflow_runs_weekly_and_when_a_lock_changes():
    text = (ROOT / ".github" / "workflows" / "advisories.yml").read_text()
    assert "run: make advisories" in text
    assert re.search(r'cron: "\d+ \d+ \* \* \d"', text)
    assert text.count('".ci/locks/**", constraints.txt') == 2
