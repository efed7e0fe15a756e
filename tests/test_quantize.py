"""`model.quantize`: checked by name, trained under LoRA, saved whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from alignkit import InputError, models, recipe

BASE = """
method: {method}
model: {{build: {{tokenizer: bytes}}, {model}}}
data: {{train: {{dataset: arithmetic}}, prompt: arithmetic}}
{more}
"""
LORA = "lora: {r: 4, target_modules: all-linear}"


def problems(folder: Path, model: str, method: str = "sft", more: str = "") -> str:
    file = folder / "small.yaml"
    file.write_text(BASE.format(model=model, method=method, more=more))
    with pytest.raises(InputError) as raised:
        recipe.load(file)
    return str(raised.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{load_in_4bits: true}", "did you mean 'load_in_4bit'"),
        ("{load_in_4bit: 1}", "expected true or false"),
        ("{bnb_4bit_quant_type: nf4}", "load_in_4bit: true or load_in_8bit: true"),
    ],
)
def test_the_fields_are_transformers_own(tmp_path, settings, said):
    assert said in problems(tmp_path, f"{LORA}, quantize: {settings}")


def test_quantized_weights_need_lora(tmp_path):
    assert "add model.lora" in problems(tmp_path, "quantize: {load_in_4bit: true}")


def test_vllm_cannot_follow_quantized_weights(tmp_path):
    more = "rewards: {drgrpo: {}}\ngeneration: {max_new_tokens: 8}"
    said = problems(tmp_path, f"{LORA}, quantize: {{load_in_4bit: true}}", "grpo", more)
    assert "generation.engine: transformers" in said


def test_a_quantized_model_trains_its_adapter_and_is_saved_whole(tmp_path):
    pytest.importorskip("bitsandbytes", reason="pip install 'alignkit[quantize]'")
    import torch

    spec = SimpleNamespace(
        tokenizer="bytes",
        hidden_size=128,
        layers=2,
        heads=2,
        intermediate_size=256,
        init_std=0.05,
        max_length=64,
    )
    models.save(*models.build(spec, 0), tmp_path / "start")
    lora = {"r": 4, "alpha": 8, "target_modules": "all-linear"}
    quantize = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    model, tokenizer = models.load(
        str(tmp_path / "start"), lora=lora, quantize=quantize
    )
    assert sum(p.dtype == torch.uint8 for p in model.parameters()) == 2 * 7
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.5
    )
    ids = torch.randint(0, 200, (2, 16))
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    models.save(model, tokenizer, tmp_path / "model")
    saved, _ = models.load(str(tmp_path / "model"), for_training=False)
    start, _ = models.load(str(tmp_path / "start"), for_training=False)
    assert {p.dtype for p in saved.parameters()} == {torch.float32}
    with torch.no_grad():
        trained, merged, before = (
            m(input_ids=ids).logits for m in (model.eval(), saved, start)
        )
    # What remains is the rounding to 4 bits, which the start has too.
    assert (merged - trained).norm() < 0.5 * (before - trained).norm()
