"""Building, loading, saving models."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from alignkit import models
from alignkit.errors import InputError, MissingError

PROMPT = "User: 8+2+1+2=?\nAssistant: <think>"
RESPONSE = "8 10 11 13</think> <answer>13</answer>"


def spec(tokenizer: str = "digits", **changes) -> SimpleNamespace:
    fields = {
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 64,
        "init_std": 0.08,
        "max_length": 128,
    }
    return SimpleNamespace(tokenizer=tokenizer, **{**fields, **changes})


def logits_of(model, tokenizer, text: str = PROMPT) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, tokenizer = models.build(spec(), 1)
    models.save(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["digits", "bytes"])
@pytest.mark.parametrize("text", [PROMPT, RESPONSE, PROMPT + RESPONSE])
def test_quickstart_texts_round_trip(kind: str, text: str) -> None:
    tokenizer = models.build_tokenizer(kind)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_has_one_token_per_digit_and_tag() -> None:
    tokenizer = models.build_tokenizer("digits")
    assert tokenizer.tokenize("13</think> <answer>\n") == [
        "1",
        "3",
        "</think>",
        " ",
        "<answer>",
        "\n",
    ]


@pytest.mark.parametrize(
    "text", ["naïve 漢字 🎉", "\x00\t a  b \r\n", "{}\\boxed{½}", "User:User:", ""]
)
def test_bytes_round_trips_any_text(text: str) -> None:
    tokenizer = models.build_tokenizer("bytes")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(text)["input_ids"]) == len(text.encode())


@pytest.mark.parametrize("kind", ["digits", "bytes"])
def test_chat_template_marks_the_answer_and_its_end(kind: str) -> None:
    tokenizer = models.build_tokenizer(kind)
    chat = [{"role": "user", "content": "1+2=?"}, {"role": "assistant", "content": "3"}]
    encoded = tokenizer.apply_chat_template(
        chat, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        i
        for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if m
    ]
    assert marked == [*tokenizer("3")["input_ids"], tokenizer.eos_token_id]
    asked = tokenizer.apply_chat_template(
        chat[:1], tokenize=False, add_generation_prompt=True
    )
    assert asked == "User: 1+2=?\nAssistant: "
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_unknown_tokenizer_is_named_with_its_neighbour() -> None:
    with pytest.raises(InputError, match="did you mean 'digits'"):
        models.build_tokenizer("digit")


def test_build_depends_on_the_seed_alone_and_leaves_the_global_state() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, _ = models.build(spec(), 1)
    assert torch.equal(torch.rand(3), expected)
    again, _ = models.build(spec(), 1)
    other, _ = models.build(spec(), 2)
    weights = [m.model.embed_tokens.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_matrix_has_the_asked_for_spread() -> None:
    model, _ = models.build(spec(hidden_size=64, init_std=0.3), 1)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            assert parameter.std().item() == pytest.approx(0.3, rel=0.1), name


def test_a_tiny_model_runs_on_one_thread_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        models.build(spec(), 1)
        assert torch.get_num_threads() == 2
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert models.describe(*models.build(spec(), 1))["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="hidden_size 32 is not divisible by heads 3"):
        models.build(spec(heads=3), 1)


@pytest.mark.parametrize("kind", ["digits", "bytes"])
def test_saved_model_is_the_same_through_our_loader_and_the_auto_classes(
    kind: str, tmp_path: Path
) -> None:
    built = models.build(spec(kind), 1)
    folder = tmp_path / "model"
    models.save(*built, folder)
    ours = models.load(str(folder))
    auto = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    for model, tokenizer in (ours, auto):
        assert tokenizer(PROMPT)["input_ids"] == built[1](PROMPT)["input_ids"]
        assert (
            tokenizer.decode(tokenizer(PROMPT + RESPONSE)["input_ids"])
            == PROMPT + RESPONSE
        )
        assert (tokenizer.eos_token, tokenizer.pad_token) == (models.END, models.PAD)
        assert tokenizer.chat_template == models.CHAT_TEMPLATE
        assert torch.equal(logits_of(model, tokenizer), logits_of(*built))


@pytest.mark.slow
def test_saved_model_answers_the_same_in_a_fresh_process(saved: Path) -> None:
    script = f"""
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained({str(saved)!r}), AutoTokenizer.from_pretrained({str(saved)!r})
print(model.generate(**tokenizer({PROMPT!r}, return_tensors="pt"), do_sample=False, max_new_tokens=16).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    model, tokenizer = models.build(spec(), 1)
    expected = model.generate(
        **tokenizer(PROMPT, return_tensors="pt"), do_sample=False, max_new_tokens=16
    )
    assert json.loads(done.stdout) == expected.tolist()


def test_a_generic_tokenizer_beside_a_qwen2_model_is_loaded_as_saved(
    tmp_path: Path,
) -> None:
    tokenizer = models.build_tokenizer("digits")
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(str(tmp_path))
    assert loaded(PROMPT)["input_ids"] == tokenizer(PROMPT)["input_ids"]
    assert loaded.decode(loaded(RESPONSE)["input_ids"]) == RESPONSE


def test_a_run_folder_means_its_final_model(saved: Path) -> None:
    run = saved.parent
    (run / "manifest.json").write_text("{}")
    assert models.resolve(str(run)) == str(saved)


def test_a_run_without_a_model_names_its_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "checkpoints" / "checkpoint-40").mkdir(parents=True)
    with pytest.raises(InputError, match=r"not finished.*checkpoint-40"):
        models.load(str(tmp_path))


def test_a_pipeline_names_its_stages_that_have_a_model(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "stages" / "sft" / "model").mkdir(parents=True)
    (tmp_path / "stages" / "sft" / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"is a pipeline; name the stage.*stages/sft$"):
        models.load(str(tmp_path))


def test_a_folder_that_is_no_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"no config\.json; it holds notes\.txt"):
        models.load(str(tmp_path))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"\0")
    with pytest.raises(InputError, match="is a file; a model is a folder"):
        models.load(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "./nothing", "runs/nothing", "a/b/c"]
)
def test_a_path_that_can_be_no_hub_id_is_wrong_input(path: str) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        models.load(path)


def test_a_hub_model_that_cannot_be_fetched_is_missing() -> None:
    with pytest.raises(MissingError, match="hf download nobody/nothing"):
        models.load("nobody/nothing")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_file_is_named(saved: Path, name: str) -> None:
    (saved / name).write_text((saved / name).read_text()[:40])
    with pytest.raises(InputError, match=f"{name} is damaged"):
        models.load(str(saved))


def test_damaged_weights_are_wrong_input(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="the model cannot be loaded"):
        models.load(str(saved))


def test_absent_weights_are_wrong_input(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded.*It holds"):
        models.load(str(saved))


def test_weights_that_lack_a_tensor_are_never_filled_with_random_numbers(
    saved: Path,
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        InputError,
        match=r"lack 1 of the model's tensors: model\.layers\.1\.mlp\.up_proj\.weight",
    ):
        models.load(str(saved))


def test_a_revision_of_a_folder_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="revision 'v2' was given"):
        models.load(str(saved), revision="v2")


def test_a_tokenizer_larger_than_the_model_is_refused(saved: Path) -> None:
    models.build_tokenizer("bytes").save_pretrained(saved)
    with pytest.raises(InputError, match="not a pair"):
        models.load(str(saved))


def test_a_tokenizer_without_padding_gets_a_spare_token_or_the_end_token(
    saved: Path,
) -> None:
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (saved / "tokenizer_config.json").write_text(json.dumps(settings))
    # the vocabulary holds one that is named so
    assert models.load_tokenizer(str(saved)).pad_token == models.PAD


def test_a_tokenizer_without_an_end_is_refused(saved: Path) -> None:
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (saved / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="no end token"):
        models.load_tokenizer(str(saved))


def test_dtype_is_obeyed_and_recorded(saved: Path) -> None:
    model, tokenizer = models.load(str(saved), dtype="bfloat16", attention="eager")
    described = models.describe(model, tokenizer)
    assert (described["dtype"], described["attention"]) == ("bfloat16", "eager")
    assert (
        described["parameters"]
        == described["trainable"]
        == sum(p.numel() for p in model.parameters())
    )
    assert described["context"] == 128


def test_unknown_dtype_and_attention_are_wrong_input(saved: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'bfloat16'"):
        models.load(str(saved), dtype="bfloat")
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load(str(saved), attention="sdpaa")


LORA = {"r": 4, "alpha": 8, "target_modules": "all-linear"}


def shake(model) -> None:
    """Give the fresh adapter an effect: its second matrix starts at zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)


def test_lora_trains_the_adapter_alone(saved: Path) -> None:
    model, tokenizer = models.load(str(saved), lora=LORA)
    assert all(
        ("lora_" in name) == p.requires_grad for name, p in model.named_parameters()
    )
    described = models.describe(model, tokenizer)
    assert 0 < described["trainable"] < described["parameters"]


def test_a_lora_model_is_saved_merged_with_its_adapter_beside_it(
    saved: Path, tmp_path: Path
) -> None:
    model, tokenizer = models.load(str(saved), lora=LORA)
    base = logits_of(model, tokenizer)
    shake(model)
    models.save(model, tokenizer, tmp_path / "tuned")
    tuned = logits_of(model, tokenizer)  # the model in memory still has its adapter
    assert not torch.allclose(tuned, base, atol=1e-3)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    assert torch.allclose(logits_of(merged, tokenizer), tuned, atol=1e-5)
    adapter, _ = models.load(str(tmp_path / "tuned" / "adapter"))
    assert torch.allclose(logits_of(adapter, tokenizer), tuned, atol=1e-5)


def test_wrong_lora_settings_are_wrong_input(saved: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'lora_dropout'"):
        models.load(str(saved), lora={"r": 4, "lora_dropot": 0.1})
    with pytest.raises(InputError, match="nowhere"):
        models.load(str(saved), lora={"r": 4, "target_modules": ["nowhere"]})


def test_a_model_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    model, tokenizer = models.build(spec(), 1)
    left = tmp_path / "model.partial"
    left.mkdir()
    # of a process that was killed while saving
    (left / "stale.safetensors").write_bytes(b"half")
    models.save(model, tokenizer, tmp_path / "model")
    assert not left.exists()
    assert not (tmp_path / "model" / "stale.safetensors").exists()


class Harm:
    """What touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("harmful", [True, False])
def test_weights_as_a_pickle_are_loaded_where_they_are_tensors_alone(
    saved: Path, tmp_path: Path, harmful: bool
):
    from safetensors.torch import load_file

    tensors = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    more = {"extra": Harm(tmp_path / "touched")} if harmful else {}
    torch.save({**tensors, **more}, saved / "pytorch_model.bin")
    if not harmful:
        assert models.load(str(saved))[0].num_parameters() > 0
        return
    with pytest.raises(InputError, match="pickle that holds more than tensors") as said:
        models.load(str(saved))
    assert str(saved) in str(said.value) and "weights_only" not in str(said.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_model_is_never_run_nor_asked_for(saved: Path, file: str):
    config = json.loads((saved / file).read_text())
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    config |= {"auto_map": dict.fromkeys(kinds, "evil.Evil"), "model_type": "evil"}
    if file == "tokenizer_config.json":
        config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        config["tokenizer_class"] = "Evil"
    (saved / file).write_text(json.dumps(config))
    touched = saved / "touched"
    (saved / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(touched)!r}).touch()\nclass Evil: pass\n"
    )
    with pytest.raises(InputError, match="code of a model is never run"):
        models.load(str(saved))
    assert not touched.exists()


def test_every_way_to_load_a_model_refuses_its_code():
    """transformers asks at a terminal where it was not told."""
    root = Path(models.__file__).parents[2]
    ways = []
    for folder in ("alignkit", "rewards", "evals", "plugins"):
        for file in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "from_pretrained"
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id not in ("PeftModel", "GenerationConfig")
                ):
                    ways.append((file.name, {k.arg for k in node.keywords}))
    assert len(ways) >= 8
    assert [w for w in ways if "trust_remote_code" not in w[1]] == []


def test_a_sweep_is_told_from_an_unfinished_run(saved: Path, tmp_path: Path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    for name in ("manifest.json", "recipe.yaml"):
        (tmp_path / "sweep" / name).write_text("{}")
    with pytest.raises(InputError, match=r"is a sweep; .* none has one yet"):
        models.resolve(str(tmp_path / "sweep"))
    run = tmp_path / "sweep" / "runs" / "a-seed0"
    run.mkdir(parents=True)
    saved.rename(run / "model")
    with pytest.raises(InputError, match=rf"is a sweep; .*{run}"):
        models.resolve(str(tmp_path / "sweep"))
