"""What a CPU cannot show: training, generation and saving on a CUDA device, in bfloat16."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from alignkit import models
from alignkit.cli import main
from alignkit.engines.base import Sampling
from alignkit.engines.transformers import TransformersEngine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

KIT = Path(__file__).parents[2] / "benchmarks" / "gpu_kit"
RECIPE = """
name: small
method: {method}
model:
  build: {{tokenizer: digits, hidden_size: 64, layers: 2, heads: 2, intermediate_size: 128, max_length: 64}}
  dtype: bfloat16
data: {{train: {data}, prompt: arithmetic}}
train:
  max_steps: 2
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 2
  gradient_checkpointing: true
  learning_rate: 1.0e-3
  save_strategy: "no"
{more}
"""
ROLLOUTS = """
  num_generations: 4
rewards: {evenness: {}}
generation: {engine: transformers, max_new_tokens: 8}
"""
MORE = {"sft": "", "dpo": "loss: {name: dpo}", "grpo": ROLLOUTS, "rloo": ROLLOUTS}


@pytest.fixture
def run(tmp_path):
    """Run a small recipe by the command line in this process; gives the run folder."""
    pairs = tmp_path / "pairs.jsonl"
    row = {"question": "1+2+3+4=?", "chosen": "10", "rejected": "11"}
    pairs.write_text((json.dumps(row) + "\n") * 32)
    data = dict.fromkeys(MORE, "{dataset: arithmetic, size: 64}")
    data["dpo"] = f"{{dataset: jsonl, path: {pairs}}}"

    def call(method, *sets):
        recipe = tmp_path / f"{method}.yaml"
        text = RECIPE.format(method=method, data=data[method], more=MORE[method])
        recipe.write_text(text)
        folder = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        words = ["--kit", str(KIT), "--folder", str(folder)]
        words += [word for pair in sets for word in ("--set", pair)]
        with pytest.raises(SystemExit) as left:
            main(["run", str(recipe), *words])
        assert not left.value.code
        return folder

    return call


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["train/loss"] for row in rows if "train/loss" in row]


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo", "rloo"])
def test_every_method_trains_and_saves_a_model_that_loads_on_the_gpu(run, method):
    folder = run(method)
    assert len(losses(folder)) == 2
    with safe_open(folder / "model" / "model.safetensors", "pt") as saved:
        dtypes = {saved.get_tensor(name).dtype for name in saved.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16}
    model, _ = models.load(str(folder), dtype="bfloat16", for_training=False)
    assert model.device.type == "cuda"
    start, _ = models.load(str(folder / "start"), dtype="bfloat16", for_training=False)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_losses_are_those_of_the_cpu(run, method):
    plain = ["model.dtype=float32", "train.bf16=false"]
    on_gpu = losses(run(method, *plain))
    on_cpu = losses(run(method, *plain, "train.use_cpu=true"))
    assert on_gpu == pytest.approx(on_cpu, rel=1e-4)


def test_checkpointing_changes_no_loss(run):
    plain = ["model.dtype=float32", "train.bf16=false"]
    assert losses(run("sft", *plain)) == pytest.approx(
        losses(run("sft", *plain, "train.gradient_checkpointing=false")), rel=1e-5
    )


def test_a_run_gives_its_memory_back(run):
    run("sft")
    gc.collect()
    before = torch.cuda.memory_allocated()
    run("grpo")
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 2**20


def test_adapters_are_saved_merged_and_alone(run):
    folder = run("sft", "model.lora={r: 4, target_modules: all-linear}")
    with safe_open(folder / "model" / "model.safetensors", "pt") as merged:
        assert not [name for name in merged.keys() if "lora" in name]  # noqa: SIM118
    assert list((folder / "model" / "adapter").glob("*.safetensors"))
    assert models.load(str(folder), for_training=False)[0].device.type == "cuda"


def test_greedy_completions_are_those_of_generate(run):
    model, tokenizer = models.load(
        str(run("sft") / "start"), dtype="float32", for_training=False
    )
    prompts = ["1+2+3+4=?", "9+9=?", "5+0+1=?"]
    engine = TransformersEngine(model, tokenizer, name="small", batch_size=2)
    found = engine.generate(prompts, Sampling(temperature=0.0, max_new_tokens=12))
    for prompt, (completion,) in zip(prompts, found, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").to("cuda")
        (row,) = model.generate(**ids, do_sample=False, max_new_tokens=12)
        asked = ids["input_ids"].shape[1]
        assert list(completion.token_ids) == row[asked:].tolist()
