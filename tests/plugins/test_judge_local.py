"""The judge that runs in this process."""

from types import SimpleNamespace

from alignkit import models
from alignkit.endpoint.judges import JudgeClient, find_judge


def test_a_tiny_model_answers_conversations(tmp_path):
    spec = SimpleNamespace(
        tokenizer="bytes",
        hidden_size=16,
        layers=1,
        heads=2,
        intermediate_size=32,
        init_std=0.08,
    )
    spec.max_length = 256
    models.save(*models.build(spec, seed=0), tmp_path / "model")
    client = JudgeClient(
        find_judge(f"local:{tmp_path / 'model'}"), tmp_path / "store.jsonl"
    )
    asked = [
        ("a", [[{"role": "user", "content": "Is 1 > 2?"}]]),
        ("b", [[{"role": "user", "content": "Hi"}]]),
    ]
    greedy = {"temperature": 0.0, "max_new_tokens": 4}
    first = client.ask(asked, greedy, lambda id_, texts: True)
    assert first.texts.keys() == {"a", "b"} and first.asked == 2
    assert client.ask(asked, greedy, lambda id_, texts: True).texts == first.texts
