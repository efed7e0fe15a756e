"""The comparison of vLLM's log-probs with the trainer's, on made-up numbers."""

from __future__ import annotations

import math

import pytest
import torch

from alignkit.errors import WorkError
from alignkit.proofs import sync

PLAIN = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "shielded": 0,
    "ends": (),
}
LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.5, 3.0, 1.0]])
IDS = torch.tensor([[3, 0, 2]])  # one token of prompt, two drawn


def by_hand(row, kept, temperature=1.0):
    """Log-probs over the tokens `kept` of one row of logits."""
    weights = {token: math.exp(row[token] / temperature) for token in kept}
    return {token: math.log(w / sum(weights.values())) for token, w in weights.items()}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, ({0, 1, 2, 3}, {0, 1, 2, 3})),
        ({"temperature": 0.5}, ({0, 1, 2, 3}, {0, 1, 2, 3})),
        ({"top_k": 2}, ({0, 1}, {2, 3})),
        ({"top_p": 0.85}, ({0, 1}, {2, 3})),
        ({"min_p": 0.2}, ({0, 1}, {2})),
        ({"shielded": 1, "ends": (1,)}, ({0, 2, 3}, {0, 1, 2, 3})),
    ],
    ids=str,
)
def test_log_probs_are_those_of_the_tempered_and_cut_distribution(changes, kept):
    drawn = sync.drawn_logprobs(LOGITS.clone(), IDS, **{**PLAIN, **changes})
    temperature = changes.get("temperature", 1.0)
    expected = [
        by_hand(row, tokens, temperature)[token]
        for row, tokens, token in zip(LOGITS.tolist(), kept, (0, 2), strict=True)
    ]
    assert drawn.tolist() == pytest.approx(expected, abs=1e-6)


def test_tokens_that_one_side_does_not_know_are_left_out():
    ours = torch.tensor([-1.0, -math.inf, -2.0, -3.0])
    assert sync.gaps(ours, [-1.5, -1.0, None, -3.0]).tolist() == [0.5, 0.0]


def test_the_mean_is_over_the_tokens_of_all_processes():
    sums = torch.stack(
        [
            sync.summed(torch.tensor([0.1, 0.3])),
            sync.summed(torch.tensor([])),
            sync.summed(torch.tensor([0.8])),
        ]
    )
    mean, largest = sync.compared(sums)
    assert (mean, largest) == pytest.approx((0.4, 0.8))
    assert sync.compared(sums[1:2]) is None


def test_a_difference_above_the_tolerance_is_refused_with_the_numbers():
    sync.require_same(0.1, 9.0, 0.1)
    with pytest.raises(WorkError, match=r"0\.11 nats.*largest 9.*tolerance 0\.1\b"):
        sync.require_same(0.11, 9.0, 0.1)


def test_the_tolerance_goes_by_the_dtype_unless_it_is_stated():
    assert sync.tolerance("float32", None, None) < sync.tolerance(
        "bfloat16", None, None
    )
    assert sync.tolerance("float32", 0.3, None) == 0.3


def test_options_that_reshape_the_distribution_cannot_be_compared():
    assert sync.foreign({"stop": ["a"], "min_tokens": 3}) == []
    options = {"seed": 1, "logit_bias": {}, "frequency_penalty": 1}
    assert sync.foreign(options) == ["frequency_penalty", "logit_bias"]


def test_the_tolerance_is_what_equal_weights_were_seen_to_differ_by():
    assert sync.tolerance("float32", None, 2e-6) == pytest.approx(1.6e-5)
    assert sync.tolerance("float32", None, 0.0) == 1e-5
    assert sync.tolerance("bfloat16", None, 1.5e-3) == pytest.approx(0.012)
    assert sync.tolerance("float32", None, 1.0) == 0.005


PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
HANDED = {
    **{f"l.{p}_proj.weight": (4, float(n), 4.0) for n, p in enumerate("qkv")},
    "norm.weight": (2, 2.0, 2.0),
    "embed.weight": (8, 1.0, 8.0),
}
HELD = {
    "l.qkv_proj.weight": (12, 3.0, 12.0),
    "norm.weight": (2, 2.0, 2.0),
    "embed.weight": (16, 1.0, 8.0),  # padded
    "other.weight": (1, 0.0, 0.0),
}


def test_tensors_are_compared_whatever_vllm_packs_together():
    assert sync.unequal(HANDED, HELD, PACKED) == (2, [])


@pytest.mark.parametrize("name", ["l.qkv_proj.weight", "norm.weight"])
@pytest.mark.parametrize("fault", [(0.5, 0.0), (0.0, -1.0)])
def test_a_tensor_that_did_not_arrive_is_named(name, fault):
    numbers, total, size = HELD[name]
    other = {**HELD, name: (numbers, total + fault[0], size + fault[1])}
    _, wrong = sync.unequal(HANDED, other, PACKED)
    assert wrong == [name]
    with pytest.raises(WorkError, match=name):
        sync.require_arrived(wrong)
