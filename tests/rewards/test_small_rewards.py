"""The small rewards do what their papers say, and their docstrings run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from alignkit import kits, plugins

REGISTRY = plugins.load([kits.builtin()])


def reward(name: str):
    return REGISTRY.get("reward", name).value.function


@pytest.mark.parametrize(
    "file", sorted((kits.builtin().root / "rewards").glob("*.py")), ids=lambda p: p.stem
)
def test_the_examples_in_a_reward_run(file: Path):
    module = importlib.import_module(f"alignkit.kits.builtin.rewards.{file.stem}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("response", "prompt", "expected"),
    [
        ("thought </think> 42", "Assistant: <think>", 1.0),
        ("thought </think> 42", "Assistant: <think>\n", 1.0),
        ("<think> thought </think> 42", "Question", 1.0),
        ("<think> thought </think> 42", "Assistant: <think>", 0.0),  # opened twice
        ("thought </think> 42", "Question", 0.0),
        ("thought </think>", "Assistant: <think>", 0.0),  # no answer
        ("a </think> b </think> c", "Assistant: <think>", 0.0),
        ("thought </think> 42", [{"role": "user", "content": "q"}], 0.0),
        ("", [], 0.0),
    ],
)
def test_think_format_knows_whether_the_prompt_has_opened_the_tag(
    response, prompt, expected
):
    assert reward("think_format")(response, prompt).reward == expected


def test_length_penalty_is_nothing_up_to_the_target_and_full_after_the_buffer():
    penalty = reward("length_penalty")
    assert [
        penalty("w " * n, target=4, buffer=4).reward for n in (0, 4, 6, 8, 100)
    ] == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_a_penalty_is_not_counted_as_a_wrong_answer():
    assert reward("length_penalty")("w " * 999, target=4, buffer=4).status == "ok"


def test_repetition_penalty_grows_with_repetition():
    penalty = reward("repetition_penalty")
    assert penalty("a b c d e f", ngram=2).reward == 0.0
    assert penalty("a a a a a a a a", ngram=2).reward < -0.8
    assert penalty("short", ngram=5).reward == 0.0


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(0, 0.0), (96, 0.0), (97, -0.25), (98, -0.5), (100, -1.0), (500, -1.0)],
)
def test_the_last_tokens_of_the_longest_response_cost_up_to_1(tokens, expected):
    score = reward("overlong_penalty")(tokens, longest=100, buffer=4)
    assert score.reward == pytest.approx(expected) and score.status == "ok"
    sharp = reward("overlong_penalty")(tokens, longest=100, buffer=0).reward
    assert sharp == (-1.0 if tokens > 100 else 0.0)
    assert reward("overlong_penalty")(None).status == "unparsed"


def test_question_only_needs_a_box():
    grade = reward("question_only")
    assert grade("it is 42", "42").status == "unparsed"
    assert grade(r"\boxed{41} no, \boxed{42}", "42").reward == 1.0
    assert grade(r"\boxed{42} no, \boxed{41}", "42").reward == 0.0


def test_math_verify_takes_any_of_several_truths():
    verify = reward("math_verify")
    assert verify("$x=3$", ["2", "3"]).reward == 1.0
    assert verify("nothing here", "3").status == "unparsed"


def test_a_reward_model_orders_responses_as_its_own_logits_do(tmp_path: Path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from alignkit import models

    tokenizer = models.build_tokenizer("bytes", 64)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    net = LlamaForSequenceClassification(config).eval()
    net.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    responses = ["yes", "a longer one", "no"]
    scores = reward("reward_model")(
        responses, ["q: "] * 3, model=str(tmp_path), batch_size=2
    )
    for response, score in zip(responses, scores, strict=True):
        alone = (
            net(**tokenizer("q: " + response, return_tensors="pt")).logits[0, 0].item()
        )
        assert score.reward == pytest.approx(alone, abs=1e-4)
