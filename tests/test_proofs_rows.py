"""The proof that a row's log-probs are its own: over architectures, methods and ways to
batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from transformers import AutoConfig, AutoModelForCausalLM

from alignkit import models
from alignkit.cli import cli
from alignkit.errors import InputError
from alignkit.proofs import log_probs

SMALL = {"hidden_size": 32, "vocab_size": 300}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "vocab_size": 300}
HEADS = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
DECODER = {**SMALL, **HEADS, "intermediate_size": 64, "max_position_embeddings": 256}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": {
        **SMALL,
        "num_layers": 2,
        "attention_types": [[["global"], 2]],
        "num_heads": 2,
        "max_position_embeddings": 256,
    },
    "bloom": {**SMALL, "n_layer": 2, "n_head": 2},
    "opt": {
        **{k: v for k, v in DECODER.items() if k not in ("intermediate_size",)},
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    },
    "mamba": {**SMALL, "num_hidden_layers": 2, "state_size": 4},
    "gemma2": {**DECODER, "head_dim": 16, "sliding_window": 64},
    "recurrent_gemma": {
        **SMALL,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 64,
        "lru_width": 32,
        "attention_window_size": 64,
        "logits_soft_cap": 2.0,
    },
}
SFT = {
    "method": "sft",
    "loss": {"name": "sft", "normalize": "token"},
    "train": {"max_length": 256},
}
PACKED = {**SFT, "train": {"packing": True, "max_length": 256}}
DPO = {"method": "dpo", "loss": {"name": "dpo"}}
ROLLOUTS = {
    "rewards": {"length_penalty": {"target": 1, "buffer": 4}},
    "generation": {"engine": "transformers", "max_new_tokens": 4},
    "train": {"num_generations": 2, "beta": 0.05},
}
GRPO = {**ROLLOUTS, "method": "grpo", "loss": {"name": "grpo_clip"}}
RLOO = {**ROLLOUTS, "method": "rloo", "loss": {"name": "trl"}}
PLAIN, POSITIONS, HEAD = "", "position_ids", "own head"
REFUSED = None
# what the proof does about a model, by method
EXPECTED = {
    ("llama", "sft"): PLAIN,
    ("llama", "packed"): PLAIN,
    ("llama", "dpo"): PLAIN,
    ("llama", "grpo"): PLAIN,
    ("llama", "rloo"): PLAIN,
    ("gpt2", "sft"): PLAIN,
    ("gpt2", "packed"): PLAIN,
    ("gpt2", "dpo"): PLAIN,
    ("gpt2", "grpo"): POSITIONS,
    ("gpt2", "rloo"): POSITIONS,
    ("gpt_neo", "grpo"): POSITIONS,
    ("gpt_bigcode", "grpo"): POSITIONS,
    ("bloom", "grpo"): PLAIN,
    ("bloom", "packed"): REFUSED,
    ("opt", "grpo"): PLAIN,
    ("opt", "packed"): REFUSED,
    ("gemma2", "grpo"): PLAIN,
    ("gemma2", "sft"): PLAIN,
    ("recurrent_gemma", "sft"): HEAD,
    ("recurrent_gemma", "dpo"): HEAD,
    ("mamba", "sft"): PLAIN,
    ("mamba", "packed"): REFUSED,
}
METHODS = {"sft": SFT, "packed": PACKED, "dpo": DPO, "grpo": GRPO, "rloo": RLOO}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of unequal length, and every architecture in small with large weights."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [
        {
            "prompt": f"What is {'1+' * n}1?",
            "response": f" It is {n + 1}{', so' * n}.",
            "chosen": f" {n + 1}{'.' * n}",
            "rejected": f" not {'so ' * n}",
        }
        for n in range(8)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = models.build_tokenizer("bytes", 256)
    for name, shape in ARCHITECTURES.items():
        torch.manual_seed(0)
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
        config = AutoConfig.for_model(name, **shape, **ids)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 2:
                    weight.normal_(0, 0.2)
        models.save(model, tokenizer, folder / name)
    return folder


def run(home: Path, name: str, change: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """The result of a run of one step, and its proofs by name."""
    recipe = {"name": "rows", "model": {"path": str(home / name), "dtype": "float32"}}
    recipe |= {"data": {"train": {"dataset": "jsonl", "path": "rows.jsonl"}}, **change}
    step = {"max_steps": 1, "per_device_train_batch_size": 4, "save_strategy": "no"}
    recipe["train"] = {**step, **change.get("train", {})}
    recipe |= more
    file = home / f"{name}-{change['method']}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    folder = home / f"run-{len(list(home.iterdir()))}"
    result = CliRunner().invoke(cli, ["run", str(file), "--folder", str(folder)])
    proofs = json.loads((folder / "proofs.json").read_text())["proofs"]
    return result, {proof["name"]: proof for proof in proofs}


@pytest.mark.parametrize(("name", "method"), EXPECTED)
def test_log_probs_are_those_of_each_row_alone(home: Path, name: str, method: str):
    result, proofs = run(home, name, METHODS[method])
    cure = EXPECTED[name, method]
    if cure is REFUSED:
        assert isinstance(result.exception, InputError), result.output
        assert "train.packing: false" in str(result.exception)
        assert proofs["rows_apart"]["outcome"] == "failed"
        return
    assert result.exit_code == 0, result.output
    for proof in ("rows_alone", "rows_apart"):
        assert proofs[proof]["outcome"] == "proven", proofs[proof]
    assert cure in proofs["rows_alone"]["note"]
    assert bool(cure) == bool(proofs["rows_alone"]["note"])


@pytest.mark.parametrize(
    ("name", "method", "cure"),
    [
        ("recurrent_gemma", "sft", HEAD),
        ("recurrent_gemma", "dpo", HEAD),
        ("gemma2", "sft", PLAIN),
        ("gemma2", "grpo", PLAIN),
        ("llama", "sft", PLAIN),
        ("llama", "grpo", PLAIN),
        ("gpt2", "grpo", POSITIONS),
    ],
)
def test_half_precision_hides_no_wrong_head(home, name, method, cure):
    """Rounding in the layers is larger than what a soft cap left out changes."""
    model = {"path": str(home / name), "dtype": "bfloat16"}
    result, proofs = run(home, name, METHODS[method], model=model)
    assert result.exit_code == 0, result.output
    assert proofs["rows_alone"]["outcome"] == "proven"
    note = proofs["rows_alone"]["note"]
    assert cure in note and bool(cure) == bool(note)


def test_a_waived_proof_lets_the_run_go_on(home: Path):
    waive = {"rows_alone": "tried", "rows_apart": "tried"}
    result, proofs = run(home, "bloom", PACKED, waive=waive)
    assert result.exit_code == 0, result.output
    assert {proofs[name]["outcome"] for name in waive} == {"waived"}


def test_a_run_with_the_proofs_is_the_run_without_them(home: Path, monkeypatch):
    """The same weights, to the bit."""
    from alignkit.train import proving

    dropout = {**GRPO, "train": {**GRPO["train"], "max_steps": 2}}
    with_proofs, _ = run(home, "gpt2", dropout)
    monkeypatch.setattr(proving, "START", {})
    without, _ = run(home, "llama", GRPO)
    assert with_proofs.exit_code == without.exit_code == 0
    monkeypatch.undo()
    run(home, "llama", GRPO)
    ends = sorted(
        home.glob("run-*/model/model.safetensors"), key=lambda p: p.stat().st_mtime
    )
    assert ends[-1].read_bytes() == ends[-2].read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_allowed_by_the_dtype_and_never_much(dtype: torch.dtype):
    assert log_probs.allowed(0.0, dtype, 5.0) <= 0.05
    assert log_probs.allowed(0.0, torch.float32, 5.0) < 1e-4


def test_exchanged_tokens_differ_everywhere():
    ids = torch.tensor([[5, 7, 5, 9], [7, 7, 9, 9]])
    assert (log_probs.exchanged(ids) != ids).all()
    assert set(log_probs.exchanged(ids).unique().tolist()) == {5, 7, 9}
