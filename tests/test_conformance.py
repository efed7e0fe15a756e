"""`align plugins check` passes what keeps its contract and names what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignkit import conformance, kits, plugins


def checks(
    tmp_path: Path, folder: str, text: str, kind: str, name: str
) -> dict[str, tuple[bool | None, str]]:
    kit = tmp_path / "mykit"
    (kit / folder).mkdir(parents=True)
    (kit / folder / f"{name}.py").write_text(text)
    registry = plugins.load([kits.builtin(), kits.at(kit, "--kit")])
    found = conformance.prove(registry.get(kind, name), registry, lambda: None)
    return {c.check: (c.ok, c.detail) for c in found}


REWARD = """
from alignkit import Reward, Score, hookimpl
SEEN = []

def mine(response: str, truth: str) -> Score:
    BODY

@hookimpl
def align_rewards():
    yield Reward("mine", mine, deadline=1.0)
"""


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ('return Score(float(truth in response))', None),
        ('import os; return Score(float(os.getpid() % 997 + 1))', "deterministic"),
        ('return Score(1.0 / len(response))', "hostile strings in time"),
        ("while len(response) > 1000: pass\n    return Score(1.0)", "hostile strings in time"),
        ("SEEN.append(response); return Score(1.0 / len(SEEN))", "order does not matter"),
    ],
    ids=["good", "random", "crashes", "hangs", "counts its calls"],
)  # fmt: skip
def test_a_reward_is_checked(tmp_path: Path, body: str, broken: str | None):
    found = checks(tmp_path, "rewards", REWARD.replace("BODY", body), "reward", "mine")
    failed = [name for name, (ok, _) in found.items() if ok is False]
    assert (broken is None and not failed) or broken in failed, found


BATCH = """
import time
from alignkit import Reward, hookimpl

def mine(responses, truths, metadatas):
    BODY

@hookimpl
def align_rewards():
    yield Reward("mine", mine, deadline=0.05)
"""


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ("return [float(t in r) for r, t in zip(responses, truths)]", set()),
        (
            "return [float(i == 0) for i, _ in enumerate(responses)]",
            {"batch equals serial", "order does not matter"},
        ),
        ("responses.sort(); return [1.0] * len(truths)", {"inputs unchanged"}),
        (
            "return [float(len(m.pop('tags', []))) * 0 for m in metadatas]",
            {"inputs unchanged"},
        ),
        (
            "time.sleep(0.2 * sum(len(r) > 900 for r in responses)); return [1.0] *"
            " len(responses)",
            {"hostile strings in time"},
        ),
    ],
    ids=["good", "by place", "reorders", "empties metadata", "sleeps"],
)
def test_a_reward_over_a_batch_is_checked(tmp_path: Path, body: str, broken: set[str]):
    found = checks(tmp_path, "rewards", BATCH.replace("BODY", body), "reward", "mine")
    failed = {name for name, (ok, _) in found.items() if ok is False}
    assert failed >= broken and bool(failed) == bool(broken), found


def test_a_judge_that_holds_its_key_is_refused(tmp_path: Path):
    text = (
        "from alignkit import Judge, hookimpl\n\n@hookimpl\ndef align_judges():\n   "
        ' yield Judge(name="mine", model="m", base_url="http://127.0.0.1:1/v1",'
        ' key="sk-abc123")\n'
    )
    found = checks(tmp_path, "plugins", text, "judge", "mine")
    assert found["key"][0] is False and "sk-abc123" not in found["key"][1]


def test_an_eval_with_equal_ids_is_refused(tmp_path: Path):
    text = (
        "from alignkit import Eval, Sample, Score, hookimpl\n\ndef samples(rows,"
        " render):\n    return [Sample('same', render(r), r['truth']) for r in"
        " rows]\n\ndef score(sample, response):\n    return"
        ' Score(1.0)\n\n@hookimpl\ndef align_evals():\n    yield Eval(name="mine",'
        ' samples=samples, score=score, data={"dataset": "arithmetic"},'
        ' prompt="chat")\n'
    )
    assert checks(tmp_path, "evals", text, "eval", "mine")["samples"][0] is False


def test_a_prompt_keeps_braces(tmp_path: Path):
    registry = plugins.load([kits.builtin()])
    for prompt in registry.all("prompt"):
        assert all(c.ok for c in conformance.prove(prompt, registry, lambda: None)), (
            prompt.name
        )


def test_what_needs_an_option_is_said_not_to_be_checked(tmp_path: Path):
    registry = plugins.load([kits.builtin()])
    (found,) = conformance.prove(
        registry.get("reward", "reward_model"), registry, lambda: None
    )
    assert found.ok is None and "model" in found.detail
