"""What `align plugins check` sees in rewards: every planted fault, and none in those
that are right.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from alignkit import conformance, kits, plugins
from alignkit.conformance.check import Check

HEAD = """
import asyncio, os, re
from alignkit import Reward, Score, hookimpl
SEEN = {}
STATE = []

def final(text):
    found = re.search(r"<answer>(.*?)</answer>", text)
    return found[1].strip() if found else None

def graded(right):
    return Score(float(right), "ok" if right else "wrong")

"""
TAIL = """

@hookimpl
def align_rewards():
    yield Reward("mine", mine, deadline=2.0)
"""
SAMPLE = "def mine(response: str, truth: str) -> Score:\n"
BATCH = "def mine(responses, truths):\n"
RACE = """
async def mine(response: str, truth: str) -> Score:
    STATE[:] = [truth]
    await asyncio.sleep(0)
    return graded(final(response) == STATE[0])
"""
CACHED_BATCH = """    for r, t in zip(responses, truths):
        SEEN.setdefault(r, float(final(r) == t))
    return [SEEN[r] for r in responses]
"""
FAULTS = {
    "a cache keyed by the response alone": (
        SAMPLE
        + "    SEEN.setdefault(response, graded(final(response) == truth))\n"
        + "    return SEEN[response]\n",
        "truths apart",
    ),
    "such a cache over batches": (BATCH + CACHED_BATCH, "truths apart"),
    "a race on the truth": (RACE, "truths apart"),
    "the arguments exchanged": (
        SAMPLE + "    return graded(final(truth) == response)\n",
        "arguments in place",
    ),
    "the second equal response scored otherwise": (
        SAMPLE
        + "    again = (response, truth) in SEEN\n    SEEN[response, truth] = 1\n"
        + "    return graded(final(response) == truth and not again)\n",
        "always the same",
    ),
    "the second equal response of a batch": (
        BATCH
        + "    return [float(final(r) == t and r not in responses[:i])\n"
        + "            for i, (r, t) in enumerate(zip(responses, truths))]\n",
        "always the same",
    ),
    "another verdict after 50 calls": (
        SAMPLE
        + "    STATE.append(1)\n"
        + "    return graded(final(response) == truth and len(STATE) <= 50)\n",
        "always the same",
    ),
    "another verdict in another process": (
        SAMPLE + "    return Score(float(os.getpid() % 997 + 1))\n",
        "deterministic",
    ),
}
NOTES = {
    "the truth ignored": (
        SAMPLE + '    return Score(float("<answer>" in response))\n',
        "reads the truth",
    ),
    "a constant": (SAMPLE + "    return Score(1.0)\n", "reads the truth"),
    "ok at 0": (
        SAMPLE + '    return Score(float(final(response) == truth), "ok")\n',
        "right above wrong",
    ),
}
RIGHT = {
    "of samples": SAMPLE + "    return graded(final(response) == truth)\n",
    "of batches": BATCH
    + "    return [float(final(r) == t) for r, t in zip(responses, truths)]\n",
    "async": "async "
    + SAMPLE
    + "    await asyncio.sleep(0)\n    return graded(final(response) == truth)\n",
    "by containment": SAMPLE + "    return graded(truth in response)\n",
    "with a cache keyed by both": SAMPLE
    + "    SEEN.setdefault((response, truth), graded(final(response) == truth))\n"
    + "    return SEEN[response, truth]\n",
    "exact": SAMPLE + "    return graded(response == truth)\n",
}


def checked(tmp_path: Path, body: str) -> list[Check]:
    (tmp_path / "kit" / "rewards").mkdir(parents=True)
    (tmp_path / "kit" / "rewards" / "mine.py").write_text(HEAD + body + TAIL)
    registry = plugins.load([kits.builtin(), kits.at(tmp_path / "kit", "--kit")])
    return conformance.prove(registry.get("reward", "mine"), registry, lambda: None)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails(tmp_path: Path, name: str):
    body, check = FAULTS[name]
    checks = checked(tmp_path, body)
    assert check in {c.check for c in checks if c.ok is False}, checks


@pytest.mark.parametrize("name", NOTES)
def test_what_may_be_meant_is_noted(tmp_path: Path, name: str):
    body, check = NOTES[name]
    checks = checked(tmp_path, body)
    assert [c.check for c in checks if c.ok is None] == [check]
    assert all(c.ok is not False for c in checks)


@pytest.mark.parametrize("name", NOTES)
def test_a_style_reward_is_not_told_what_it_means(tmp_path: Path, name: str):
    body, _ = NOTES[name]
    kit = tmp_path / "kit" / "rewards"
    kit.mkdir(parents=True)
    tail = TAIL.replace("deadline=2.0", "style=True")
    (kit / "mine.py").write_text(HEAD + body + tail)
    registry = plugins.load([kits.builtin(), kits.at(tmp_path / "kit", "--kit")])
    checks = conformance.prove(registry.get("reward", "mine"), registry, lambda: None)
    assert all(c.ok for c in checks)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_reward_passes_without_a_word(tmp_path: Path, name: str):
    checks = checked(tmp_path, RIGHT[name])
    assert all(c.ok for c in checks), checks


@pytest.mark.parametrize(
    "name",
    [
        "drgrpo",
        "exact_match",
        "length_penalty",
        "math_verify",
        "question_only",
        "repetition_penalty",
        "think_format",
    ],
)
def test_the_rewards_that_come_along_pass(name: str):
    registry = plugins.load([kits.builtin()])
    checks = conformance.prove(registry.get("reward", name), registry, lambda: None)
    assert all(c.ok for c in checks), [c for c in checks if not c.ok]
