"""What `align plan` foretells is what PyTorch does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit import kits, models, plan, plugins, recipe
from alignkit.models.shape import shape
from alignkit.plan import estimate, machine, memory

SPEC = SimpleNamespace(
    tokenizer="bytes",
    hidden_size=96,
    layers=3,
    heads=2,
    intermediate_size=160,
    init_std=0.05,
    max_length=256,
)
LORA = {"r": 4, "alpha": 8, "target_modules": "all-linear"}
RECIPE = """
method: {method}
model: {{build: {{tokenizer: bytes, hidden_size: 64, layers: 2, heads: 2}}{lora}}}
data: {{train: {{dataset: arithmetic, limit: 64}}, prompt: arithmetic}}
train: {{per_device_train_batch_size: 4, max_steps: 12, save_steps: 5{train}}}
{more}
"""
ROLLOUTS = (
    "rewards: {drgrpo: {}}\ngeneration: {engine: transformers, max_new_tokens: 20}"
)


def planned(
    folder: Path, method: str = "sft", train: str = "", more: str = "", lora: str = ""
) -> plan.Plan:
    file = folder / "small.yaml"
    file.write_text(RECIPE.format(method=method, train=train, more=more, lora=lora))
    registry = plugins.load([kits.builtin()])
    return plan.plan(recipe.load(file, registry=registry), registry, estimates=True)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_bytes_of_weights_gradients_and_adamw_are_those_after_a_real_step(dtype, lora):
    import torch

    model, _ = models.build(SPEC, 0)
    model = model.to(getattr(torch, dtype))
    if lora:
        model = models.add_lora(model, lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.randint(0, 200, (2, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()

    found = shape(None, SPEC, dtype=dtype, lora=lora)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.weight_bytes == sum(p.nbytes for p in model.parameters())
    assert found.trainable_bytes == sum(p.grad.nbytes for p in trained)
    states = sum(
        v.nbytes for s in optimizer.state.values() for v in s.values() if v.dim()
    )
    assert memory.optimizer_bytes("adamw_torch_fused", found) == states


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_activations_of_a_layer_are_what_autograd_keeps(dtype, checkpointed):
    found = shape(None, SPEC, dtype=dtype)
    each = memory.activation_bytes(found.block, found.element)
    # its input alone; the rest is computed anew during the backward pass
    if checkpointed:
        each = found.element * found.block.hidden
    real = kept_bytes(3, dtype, checkpointed) - kept_bytes(1, dtype, checkpointed)
    assert real / 2 == pytest.approx(2 * 64 * each, rel=0.01)


def kept_bytes(layers: int, dtype: str, checkpointed: bool) -> int:
    """What a forward pass over 2 rows of 64 tokens keeps beside the weights."""
    import torch

    model, _ = models.build(SimpleNamespace(**{**vars(SPEC), "layers": layers}), 0)
    model = model.to(getattr(torch, dtype)).train()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(torch.randint(0, 200, (2, 64)), use_cache=False)
    return sum(
        tensor.untyped_storage().nbytes()
        for at, tensor in kept.items()
        if at not in weights
    )


def test_quantized_weights_take_half_a_byte_and_their_scales():
    whole, found = (
        shape(None, SPEC, dtype="bfloat16", quantize=q)
        for q in (None, {"load_in_4bit": True})
    )
    linear = 3 * (4 * 96 * 96 + 3 * 96 * 160)
    assert whole.weight_bytes - found.weight_bytes == pytest.approx(
        linear * (2 - 0.5 - 4 / 64), abs=1
    )
    assert found.model_bytes == whole.model_bytes


def test_a_plan_counts_rollouts_tokens_and_checkpoints(tmp_path):
    found = planned(
        tmp_path, "grpo", ", num_generations: 4, num_iterations: 2", ROLLOUTS
    ).estimate
    # 12 steps, two to a batch of 4 completions
    assert found["work"]["rollouts"] == 6 * 4
    assert found["work"]["tokens, at most"] == pytest.approx(
        24 * (found["work"]["prompt tokens, mean"] + 20), abs=2
    )
    assert found["files"]["checkpoints"] == 3  # after 5, 10 and 12 steps
    assert "cache of rollouts" in found["memory"]["parts"]


def test_a_reference_model_is_counted_where_there_is_one(tmp_path):
    def parts(**given):
        return planned(tmp_path, "grpo", **given).estimate["memory"]["parts"]

    assert "reference model" not in parts(train=", num_generations: 4", more=ROLLOUTS)
    held = parts(train=", num_generations: 4, beta: 0.1", more=ROLLOUTS)
    assert held["reference model"] == held["weights"]
    lora = ", lora: {r: 4, target_modules: all-linear}"
    assert "reference model" not in parts(
        train=", num_generations: 4, beta: 0.1", more=ROLLOUTS, lora=lora
    )


def test_the_peak_does_not_add_up_what_is_never_held_at_once():
    parts = {"weights": 10, "activations": 4, "fused head": 1, "cache of rollouts": 7}
    assert memory.peak(parts) == 17
    assert memory.peak(parts | {"cache of rollouts": 2}) == 15


def test_time_comes_from_an_earlier_run_of_the_same_training_and_from_no_other(
    tmp_path,
):
    from alignkit import run

    more = f"output: {{root: {tmp_path / 'runs'}}}"
    stage = planned(tmp_path, more=more)
    assert "time" not in stage.estimate
    made = run.Run.create(
        tmp_path / "runs",
        "small",
        hardware={"gpus": []},
        training={"steps": 6, "seconds": 3.0},
    )
    shutil.copy(tmp_path / "small.yaml", made.folder / "recipe.yaml")
    found = planned(tmp_path, more=more).estimate["time"]
    assert (found["seconds"], found["measured in"]) == (6, str(made.folder))
    assert (
        "time" not in planned(tmp_path, train=", weight_decay: 0.1", more=more).estimate
    )


def test_the_cost_of_a_judge_is_an_upper_bound_over_all_its_runs():
    registry = plugins.load([kits.builtin()])
    task = registry.get("eval", "sst").value.judge
    from alignkit import Sample
    from alignkit.engines.base import Sampling

    samples = [Sample(str(k), "?", None, {"question": "?"}) for k in range(3)]
    found = estimate.judging(
        task, samples, Sampling(max_new_tokens=100, n=2), 4, price=1.0
    )
    assert found.requests == 3 * 2 * 4
    assert found.input_tokens > 24 * 100
    assert found.dollars == pytest.approx(
        (found.input_tokens + found.output_tokens) / 1e6
    )


@pytest.mark.parametrize(
    ("train", "package"),
    [
        (", optim: paged_adamw_8bit", "alignkit[quantize]"),
        (", optim: adamw_torch_4bit", "alignkit[torchao]"),
        (", use_liger_kernel: true", "alignkit[liger]"),
    ],
)
def test_a_setting_whose_package_is_not_installed_is_missing(
    tmp_path, train, package, monkeypatch
):
    monkeypatch.setattr(
        "importlib.util.find_spec", _without("bitsandbytes", "torchao", "liger_kernel")
    )
    [line] = planned(tmp_path, train=train).missing
    assert package in line


def _without(*hidden):
    import importlib.util

    real = importlib.util.find_spec
    return lambda name, *rest: None if name in hidden else real(name, *rest)


def test_every_optimizer_that_transformers_names_is_torchs_or_has_a_package():
    import re

    from alignkit.recipe import trl

    own = {
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_torch_xla",
        "adamw_torch_npu_fused",
        "adafactor",
    }
    own |= {"adamw_anyprecision", "sgd", "adagrad", "rmsprop"}
    for name in set(trl.fields("sft")["optim"].choices) - own:
        assert any(re.fullmatch(names, name) for names in machine.OPTIMIZER_PACKAGES), (
            name
        )


def test_sharding_divides_what_is_sharded():
    found = shape(None, SPEC, dtype="float32")
    config = SimpleNamespace(
        launch=SimpleNamespace(processes=4),
        model=SimpleNamespace(lora=None),
        method="sft",
        generation=None,
        train={},
    )
    settings = {
        "fsdp": "full_shard auto_wrap",
        "optim": "adamw_torch",
        "per_device_train_batch_size": 1,
    }
    parts = memory.memory(config, settings, found, None, 0)
    whole = memory.memory(config, settings | {"fsdp": None}, replace(found), None, 0)
    assert parts == {name: size // 4 for name, size in whole.items()}
