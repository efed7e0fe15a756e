"""What is saved is what was trained: adapters, tied ends, generation settings, resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from alignkit import models
from alignkit.cli import cli
from alignkit.errors import InputError, WorkError

QUERY = {"target_modules": ["q_proj", "v_proj"]}
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": QUERY,
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "pissa": {**QUERY, "init_lora_weights": "pissa"},
    "olora": {**QUERY, "init_lora_weights": "olora"},
    "gaussian": {**QUERY, "init_lora_weights": "gaussian"},
    "dora": {**QUERY, "use_dora": True},
    "rslora": {**QUERY, "use_rslora": True},
    "bias": {**QUERY, "bias": "all"},
    "whole modules": {**QUERY, "modules_to_save": ["embed_tokens"]},
    "ranks by layer": {**QUERY, "rank_pattern": {"q_proj": 2}},
}
OWN_BASE = {"pissa", "olora"}  # their start changes the base


class Spec:
    tokenizer = "bytes"
    hidden_size, layers, heads, intermediate_size = 32, 2, 2, 64
    init_std, max_length = 0.2, 128


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model, tokenizer = models.build(Spec, 0)
    models.save(model, tokenizer, folder / "tied")
    rows = [
        {"prompt": f"{n}+1=", "response": f"{n + 1}", "chosen": "1", "rejected": "22"}
        for n in range(8)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(home: Path, method: str, path: str, *, folder: str, **change: Any) -> Any:
    """The result of a run of a few steps; `change` of the recipe's maps."""
    recipe: dict[str, Any] = {
        "name": "saved",
        "method": method,
        "model": {"path": path, "dtype": "float32", **change.pop("model", {})},
        "data": {"train": {"dataset": "jsonl", "path": "rows.jsonl"}},
        "train": {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "learning_rate": 0.05,
            "save_strategy": "no",
            **change.pop("train", {}),
        },
        **change,
    }
    file = home / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    command = ["run", str(file), "--folder", str(home / folder)]
    return CliRunner().invoke(cli, command)


def proofs(home: Path, folder: str) -> dict[str, Any]:
    known = json.loads((home / folder / "proofs.json").read_text())["proofs"]
    return {proof["name"]: proof for proof in known}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_saved_so_that_it_computes_what_was_trained(home, name):
    lora = {"r": 4, "alpha": 8, **ADAPTERS[name]}
    result = run(home, "sft", "tied", folder=name, model={"lora": lora})
    assert result.exit_code == 0, result.output
    outcome = {n: proof["outcome"] for n, proof in proofs(home, name).items()}
    assert outcome["saved_model"] == outcome["saved_tokenizer"] == "proven"
    own = name in OWN_BASE
    assert outcome["saved_adapter"] == ("unproven" if own else "proven")
    assert (home / name / "model" / "adapter").is_dir() is not own


def test_the_reference_of_a_preference_run_is_not_saved_as_the_adapter(home):
    lora = {"r": 4, **QUERY}
    result = run(home, "dpo", "tied", folder="reference", model={"lora": lora})
    assert result.exit_code == 0, result.output
    assert proofs(home, "reference")["saved_adapter"]["outcome"] == "proven"
    assert not (home / "reference" / "model" / "adapter" / "ref").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.6, "top_p": 0.9},
        {"min_p": 0.9, "do_sample": True},
        {"no_repeat_ngram_size": 2},
        {"max_length": 20, "temperature": 0.5},
    ],
    ids=json.dumps,
)
def test_generation_settings_that_cannot_be_saved_cost_no_training(home, fields):
    name = f"own {'-'.join(fields)}"
    model, tokenizer = models.load(str(home / "tied"), dtype="float32")
    models.save(model, tokenizer, home / name)
    file = home / name / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    result = run(home, "sft", name, folder=f"{name} run")
    assert result.exit_code == 0, result.output
    saved = GenerationConfig.from_pretrained(home / f"{name} run" / "model").to_dict()
    assert {key: saved[key] for key in fields} == fields


def test_what_cannot_be_mended_is_left_to_the_token_ids(home):
    model, tokenizer = models.load(str(home / "tied"), dtype="float32")
    model.own_generation_config = GenerationConfig(eos_token_id=1)
    model.own_generation_config.num_return_sequences = 3
    models.save(model, tokenizer, home / "ids")
    saved = GenerationConfig.from_pretrained(home / "ids")
    assert saved.eos_token_id == 1


def test_another_model_in_the_folder_fails_after_training_and_keeps_it(
    home, monkeypatch
):
    from alignkit.train import training

    def save(model, tokenizer, folder):
        with torch.no_grad():
            next(model.parameters()).mul_(1.01)
        models.save(model, tokenizer, folder)
        with torch.no_grad():
            next(model.parameters()).div_(1.01)

    class Other:
        def __getattr__(self, name):
            return save if name == "save" else getattr(models, name)

    monkeypatch.setattr(training, "models", Other())
    result = run(home, "sft", "tied", folder="other")
    assert isinstance(result.exception, WorkError)
    assert str(home / "other") in str(result.exception)
    assert (home / "other" / "model" / "config.json").is_file()
    assert proofs(home, "other")["saved_model"]["outcome"] == "failed"


@pytest.mark.parametrize("lora", [None, {"r": 4, **QUERY}], ids=["whole", "adapter"])
def test_weights_that_the_proven_row_does_not_feel_are_compared(
    home, monkeypatch, lora
):
    """A change of a part in 1e7 of one tensor, far below any tolerance of log-probs."""
    from alignkit.train import training

    def save(model, tokenizer, folder):
        models.save(model, tokenizer, folder)
        part = folder if lora is None else folder / "adapter"
        (file,) = part.glob("*.safetensors")
        tensors = load_file(file)
        name = sorted(tensors)[-1]
        tensors[name].view(-1)[-1] *= 1 + 2e-7
        save_file(tensors, file, metadata={"format": "pt"})

    class Other:
        def __getattr__(self, name):
            return save if name == "save" else getattr(models, name)

    monkeypatch.setattr(training, "models", Other())
    folder = "bit" if lora is None else "bit adapter"
    model = {} if lora is None else {"lora": lora}
    result = run(home, "sft", "tied", folder=folder, model=model)
    assert isinstance(result.exception, WorkError), result.output
    assert "other weights than were trained: 1 " in str(result.exception)
    claim = "saved_model" if lora is None else "saved_adapter"
    assert proofs(home, folder)[claim]["outcome"] == "failed"


@pytest.fixture
def adapted(home) -> Any:
    """A model with an adapter that is not zero, in half precision."""
    from peft import LoraConfig, get_peft_model

    model, _ = models.load(str(home / "tied"), dtype="bfloat16")
    made = get_peft_model(
        model,
        LoraConfig(r=4, lora_alpha=8, modules_to_save=["embed_tokens"], **QUERY),
    )
    torch.manual_seed(0)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return made


def test_an_adapter_that_is_lost_in_the_merge_is_found(adapted):
    from copy import deepcopy

    from alignkit.train.proving.merged import unequal

    whole = deepcopy(adapted).merge_and_unload()
    assert unequal(adapted, whole) == ([], "")
    lost, note = unequal(adapted, deepcopy(adapted).unload())
    assert {name.rsplit(".", 2)[1] for name in lost} == {"q_proj", "v_proj"}
    assert "kept 0% of the adapter" in note
    other = next(p for n, p in whole.named_parameters() if "mlp" in n)
    with torch.no_grad():
        other.mul_(1.1)
    assert len(unequal(adapted, whole)[0]) == 1


def test_an_adapter_too_small_for_the_precision_of_the_merge_is_noted(adapted):
    from copy import deepcopy

    from alignkit.train.proving.merged import unequal

    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.mul_(1e-5)
    wrong, note = unequal(adapted, deepcopy(adapted).merge_and_unload())
    assert not wrong and "rounding kept" in note


def test_going_on_from_weights_alone_is_refused(home):
    train = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    result = run(home, "sft", "tied", folder="only", train=train)
    assert result.exit_code == 0, result.output
    manifest = home / "only" / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"status": "done"', '"status": "interrupted"')
    )
    result = CliRunner().invoke(cli, ["run", "--resume", str(home / "only")])
    assert isinstance(result.exception, InputError), result.output
    assert "save_only_model" in str(result.exception)


def test_a_resumed_run_tells_the_loss_of_all_its_steps(home):
    train = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    for folder in ("whole", "parts"):
        result = run(home, "sft", "tied", folder=folder, train=train)
        assert result.exit_code == 0, result.output
    manifest = home / "parts" / "manifest.json"
    before = json.loads(manifest.read_text())["training"]
    manifest.write_text(
        manifest.read_text().replace('"status": "done"', '"status": "interrupted"')
    )
    for step in (3, 4):
        (home / "parts" / "checkpoints" / f"checkpoint-{step}").rename(
            home / "parts" / f"aside-{step}"
        )
    result = CliRunner().invoke(cli, ["run", "--resume", str(home / "parts")])
    assert result.exit_code == 0, (result.output, result.exception)
    after = json.loads(manifest.read_text())["training"]
    whole = json.loads((home / "whole" / "manifest.json").read_text())["training"]
    assert after["loss"] == before["loss"] == whole["loss"]
    assert after["steps"] == 4
