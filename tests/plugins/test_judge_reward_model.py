"""A local reward model judges replies against references, end to end."""

import json
from types import SimpleNamespace

import pytest

from alignkit import kits, models, plugins
from alignkit.cli import main
from alignkit.errors import InputError


def save_reward_model(folder, outputs):
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    spec = {
        "tokenizer": "bytes",
        "hidden_size": 16,
        "layers": 1,
        "heads": 2,
        "intermediate_size": 16,
    }
    _, tokenizer = models.build(
        SimpleNamespace(**spec, init_std=0.1, max_length=512), 0
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=outputs,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_replies_are_compared_with_references_by_a_local_reward_model(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    save_reward_model(tmp_path / "rm", 1)
    rows = [
        {"prompt": f"Say {i}", "chosen": f"reference {i}", "output": "reference 0"}
        for i in range(10)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    ours = [{"question": f"Say {i}", "output": "reference 0"} for i in range(10)]
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ours))
    flags = [
        "--responses",
        "ours.jsonl",
        "--data",
        "data.jsonl",
        "--judge",
        f"reward_model:{tmp_path / 'rm'}",
        "--json",
    ]
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "ultrafeedback", *flags])
    (summary,) = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0 and summary["metrics"]["scored"] == 10
    metrics = summary["metrics"]
    assert metrics["improvement"] == pytest.approx(
        metrics["reward"] - metrics["reference_reward"]
    )
    first = json.loads(
        (tmp_path / summary["folder"] / "samples.jsonl").open().readline()
    )
    # the same reply
    assert (
        first["parts"]["reward"] == first["parts"]["reference_reward"]
        and first["reward"] == 0.5
    )
    # Batches are padded, which must not change a rating.
    judge = plugins.load([kits.builtin()]).get("judge", "reward_model").value
    rate = judge.create(str(tmp_path / "rm"))
    talks = [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x" * n}]
        for n in (1, 300, 20)
    ]
    together, alone = rate(talks, {}), [rate([talk], {})[0] for talk in talks]
    assert [float(t.removeprefix("reward:")) for t in together] == pytest.approx(
        [float(t.removeprefix("reward:")) for t in alone], abs=1e-5
    )


@pytest.mark.slow
def test_a_classifier_is_no_reward_model(tmp_path):
    save_reward_model(tmp_path / "rm", 2)
    judge = plugins.load([kits.builtin()]).get("judge", "reward_model").value
    with pytest.raises(
        InputError, match="has 2 outputs and a chat template; expected one"
    ):
        judge.create(str(tmp_path / "rm"))
