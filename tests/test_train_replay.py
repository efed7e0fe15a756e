"""`align replay`: an honest run's steps come out as they were logged, to the bit; what
was tampered with is found; and the run is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from construction import BASES, merged

from alignkit.cli import cli
from alignkit.errors import InputError

MODEL = {"build": {"tokenizer": "digits", "layers": 1, "hidden_size": 16, "heads": 2}}
STEPS = {"train": {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}}
ACCUMULATED = {"train": {"gradient_accumulation_steps": 2}}
CASES = {
    "sft": ("sft", {}),
    "sft accumulated": ("sft", ACCUMULATED),
    "sft packed": ("sft", {"train": {"packing": True}}),
    "sft with an adapter": ("sft", {"model": {"lora": {"r": 2, "lora_dropout": 0.1}}}),
    "dpo": ("dpo", {}),
    "grpo": ("grpo", {"loss": {"name": "trl"}}),
    "grpo off policy": ("grpo", merged(ACCUMULATED, {"train": {"num_iterations": 2}})),
    "rloo with a divergence": ("rloo", {"train": {"beta": 0.1}}),
}


def invoke(*command: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    return result.exit_code, result.output


def train(home: Path, case: str) -> Path:
    method, change = CASES[case]
    base = {"name": "audited", "method": method, "model": MODEL}
    recipe = merged(merged(merged(base, BASES[method]), STEPS), change)
    if method == "dpo":
        pairs = [
            {"prompt": f"1+{i}=?", "chosen": f"{i + 1}", "rejected": "0"}
            for i in range(8)
        ]
        recipe["data"]["train"]["path"] = "pairs.jsonl"
        (home / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (home / "audited.yaml").write_text(yaml.safe_dump(recipe))
    folder = home / "run"
    code, told = invoke("run", str(home / "audited.yaml"), "--folder", str(folder))
    assert code == 0, told
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def account(folder: Path, step: int) -> dict:
    _, told = invoke("replay", str(folder), "--step", str(step), "--json")
    return json.loads(told[told.index("{") :])


@pytest.mark.parametrize("case", CASES)
def test_steps_are_what_was_logged_to_the_bit(tmp_path: Path, case: str):
    folder = train(tmp_path, case)
    before = digests(folder)
    first, last = account(folder, 2), account(folder, 4)
    assert first["differences"] == last["differences"] == []
    assert first["steps"] == [1, 2]
    assert last["steps"] == [3, 4]  # from the checkpoint after step 2
    assert first["numbers"] > 10
    assert first["weights"] > 3
    assert (first["rollouts"] > 0) is CASES[case][0].startswith(("grpo", "rloo"))
    assert digests(folder) == before


def change_row(folder: Path, file: str, number: int, **fields) -> None:
    path = folder / file
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number] |= fields
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_metric(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["step"] == 4 and "train/loss" in row:
            row["train/loss"] += 1e-7
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_weight(folder: Path, step: int) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "checkpoints" / f"checkpoint-{step}" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})


def change_recipe(folder: Path) -> None:
    path = folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["train"]["learning_rate"] = 3e-3
    path.write_text(yaml.safe_dump(recipe))


ROLLOUTS = "rollouts/step-000003.jsonl"
TAMPERING = {
    "a response": lambda run: change_row(run, ROLLOUTS, 0, response="made up"),
    "a reward": lambda run: change_row(run, ROLLOUTS, 1, reward=0.75),
    "an advantage": lambda run: change_row(run, ROLLOUTS, 0, advantage=0.125),
    "a metric": change_metric,
    "a weight before": lambda run: change_weight(run, 2),
    "a weight after": lambda run: change_weight(run, 4),
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("audited"), "grpo")


@pytest.mark.parametrize("tampering", TAMPERING)
def test_what_was_tampered_with_is_found(tmp_path: Path, audited: Path, tampering: str):
    folder = tmp_path / "run"
    shutil.copytree(audited, folder)
    TAMPERING[tampering](folder)
    told = account(folder, 4)
    assert not told["equal"]
    assert told["differences"]


def test_other_settings_than_the_checkpoint_has_are_found(
    tmp_path: Path, audited: Path
):
    folder = tmp_path / "run"
    shutil.copytree(audited, folder)
    change_recipe(folder)
    with pytest.raises(InputError, match=r"learning_rate: asked for 0\.003"):
        account(folder, 4)


def test_a_step_that_was_not_logged_is_refused_with_those_that_were(audited: Path):
    with pytest.raises(InputError, match=r"no step 9; it logged 1, 2, 3,? (and )?4"):
        invoke("replay", str(audited), "--step", "9")
