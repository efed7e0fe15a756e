"""The functions of the edition of 2026 by the values of their definitions: loops in
plain Python, and autograd.
"""

import importlib.util
import inspect
import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from alignkit.course import edition_2026 as F

ADAPTERS = Path(__file__).parent / "adapters_2026.py"
REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.0]
METHODS = {
    "none": {},
    "noclip": {"old": True},
    "grpo": {"old": True, "clip": True},
    "gspo": {"old": True, "clip": True},
}


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<bos>", "<eos>", "a", "b", "c", "d"]
    core = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "d"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=7,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config).double()


def test_no_special_token_is_added(tokenizer):
    batch = F.tokenize_prompt_and_output(["a b", "c"], ["c", "d d d d"], tokenizer)
    assert batch["input_ids"].tolist() == [[3, 4, 5, 0], [5, 6, 6, 6]]
    assert batch["labels"].tolist() == [[4, 5, 0, 0], [6, 6, 6, 6]]
    assert batch["response_mask"].tolist() == [[False, True, False, False], [True] * 4]


def test_rewards_are_those_of_the_function_and_their_means_are_told():
    def reward_fn(response, truth):
        right = float(response == truth)
        return {"reward": right, "format_reward": 1.0, "answer_reward": right}

    rewards, metadata = F.compute_rollout_rewards(
        reward_fn, ["a", "b", "c", "c"], ["a", "a", "c", "d"]
    )
    assert rewards.tolist() == [1, 0, 1, 0] and rewards.dtype == torch.float32
    assert metadata == {"reward": 0.5, "format_reward": 1.0, "answer_reward": 0.5}


def advantage(group, reward, baseline, normalizer, eps):
    mean = sum(group) / len(group)
    gap = reward - mean if baseline == "mean" else reward
    if normalizer == "none":
        return gap
    if normalizer == "mean":
        return gap / (mean + eps)
    squares = sum((each - mean) ** 2 for each in group)
    return gap / (math.sqrt(squares / (len(group) - 1)) + eps)


@pytest.mark.parametrize("size", [2, 4, 12])
@pytest.mark.parametrize("normalizer", ["std", "none", "mean"])
@pytest.mark.parametrize("baseline", ["mean", "none"])
def test_advantages_are_those_of_plain_loops(baseline, normalizer, size):
    found, metadata = F.compute_group_normalized_rewards(
        torch.tensor(REWARDS, dtype=torch.float64), size, baseline, 1e-3, normalizer
    )
    groups = [REWARDS[n : n + size] for n in range(0, len(REWARDS), size)]
    expected = [
        advantage(group, reward, baseline, normalizer, 1e-3)
        for group in groups
        for reward in group
    ]
    assert found.tolist() == pytest.approx(expected)
    assert metadata["reward_mean"] == pytest.approx(sum(REWARDS) / len(REWARDS))
    equal = [len(set(group)) == 1 for group in groups]
    assert metadata["equal_groups"] == pytest.approx(sum(equal) / len(equal))


def token_loss(method, weight, gaps, logps, at, clip):
    """Of one token of a response, with the gaps to the old log-probs."""
    if method == "none":
        return -weight * logps[at]
    gap = sum(gaps) / len(gaps) if method == "gspo" else gaps[at]
    ratio = math.exp(gap)
    if method == "noclip":
        return -weight * ratio
    return -min(weight * ratio, weight * min(max(ratio, 1 - clip), 1 + clip))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("clip", [0.05, 10.0])
@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_plain_loops(method, clip, shape):
    generator = torch.Generator().manual_seed(2)
    logps = -torch.rand(3, 5, generator=generator, dtype=torch.float64)
    old = logps + 0.2 * torch.randn(3, 5, generator=generator, dtype=torch.float64)
    lengths = (5, 2, 1)
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    spoiled = old.masked_fill(~mask, math.nan)  # padding is never read
    weights = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)
    needs = METHODS[method]
    loss, metadata = F.compute_policy_gradient_loss(
        weights.view(shape),
        logps,
        method,
        spoiled if needs.get("old") else None,
        clip if needs.get("clip") else None,
        mask if method == "gspo" else None,
    )
    assert loss.shape == logps.shape
    assert all(value.shape == logps.shape for value in metadata.values())
    for row, length in enumerate(lengths):
        gaps = (logps - old)[row, :length].tolist()
        for at in range(length):
            expected = token_loss(
                method, weights[row].item(), gaps, logps[row].tolist(), at, clip
            )
            assert loss[row, at].item() == pytest.approx(expected)


def test_what_is_missing_or_unknown_is_named():
    one = torch.ones(1, 1)
    for method, missing in (("noclip", "old_log_probs"), ("grpo", "old_log_probs")):
        with pytest.raises(ValueError, match=f"'{method}' needs {missing}"):
            F.compute_policy_gradient_loss(one, one, method)
    with pytest.raises(ValueError, match="'gspo' needs response_mask"):
        F.compute_policy_gradient_loss(one, one, "gspo", one, 0.2)
    with pytest.raises(ValueError, match="unknown; known: none, noclip, grpo, gspo"):
        F.compute_policy_gradient_loss(one, one, "grpo_clip")
    with pytest.raises(ValueError, match="needs normalization_constant"):
        F.aggregate_loss_across_microbatch(one, one, "constant")


def test_sequences_count_alike_or_a_constant_divides_the_sum():
    values = torch.arange(12, dtype=torch.float64).view(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    mean = F.aggregate_loss_across_microbatch(values, mask)
    assert mean.item() == pytest.approx((1.5 + 4.5 + 0) / 3)
    whole = F.aggregate_loss_across_microbatch(values, mask, "constant", 42)
    assert whole.item() == pytest.approx((6 + 9) / 42)


PROMPTS = ["a b", "a b", "c", "c", "d d", "d d", "a", "a"]
RESPONSES = ["a", "b c", "d d d", "a", "b", "c", "a b", "c"]
SCORES = dict(zip(map(str, range(8)), [1, 0, 0.5, 0, 1, 1, 0, 0], strict=True))


def stepped(tokenizer, accumulation, norm=None, **kwargs):
    """The model after a step of SGD, the loss, and how many rows the model has seen."""
    trained = model()
    seen = []
    trained.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    scores = iter(SCORES.values())

    def reward_fn(response, truth):
        value = next(scores)
        return {"reward": value, "format_reward": 1.0, "answer_reward": value}

    loss, metadata = F.grpo_train_step(
        trained,
        tokenizer,
        torch.optim.SGD(trained.parameters(), lr=0.1),
        accumulation,
        norm,
        reward_fn,
        PROMPTS,
        RESPONSES,
        ["x"] * 8,
        2,
        **kwargs,
    )
    assert all(weight.grad is None for weight in trained.parameters())
    return trained, loss, metadata, sum(seen)


SETTINGS = [
    {},
    {"loss_normalization": "constant", "normalization_constant": 32},
    {"baseline": "none", "advantage_normalizer": "none"},
    {"advantage_normalizer": "mean"},
    {"importance_reweighting_method": "noclip"},
    {"importance_reweighting_method": "grpo", "cliprange": 0.2},
    {"importance_reweighting_method": "gspo", "cliprange": 0.2},
]


@pytest.mark.parametrize(
    "given", SETTINGS, ids=lambda one: "-".join(map(str, one.values()))
)
@pytest.mark.parametrize("accumulation", [1, 2, 8])
def test_a_step_is_that_of_the_whole_batch_with_its_rows_of_no_advantage(
    tokenizer, given, accumulation
):
    """Whatever the microbatches, and though such rows never reach the model."""
    batch = F.tokenize_prompt_and_output(PROMPTS, RESPONSES, tokenizer)
    old = None
    if "importance_reweighting_method" in given:
        drawn = torch.randn(
            batch["labels"].shape, generator=torch.Generator().manual_seed(1)
        )
        old = -2 + 0.1 * drawn.double()
    trained, loss, metadata, seen = stepped(
        tokenizer, accumulation, old_log_probs=old, **given
    )
    whole = model()
    rewards = torch.tensor([float(value) for value in SCORES.values()])
    advantages, _ = F.compute_group_normalized_rewards(
        rewards,
        2,
        given.get("baseline", "mean"),
        advantage_normalizer=given.get("advantage_normalizer", "std"),
    )
    logps = F.get_response_log_probs(whole, batch["input_ids"], batch["labels"])
    per_token, _ = F.compute_policy_gradient_loss(
        advantages,
        logps["log_probs"],
        given.get("importance_reweighting_method", "none"),
        old,
        given.get("cliprange"),
        batch["response_mask"],
    )
    expected = F.aggregate_loss_across_microbatch(
        per_token,
        batch["response_mask"],
        given.get("loss_normalization", "sequence"),
        given.get("normalization_constant"),
    )
    expected.backward()
    squares = 0.0
    for (name, after), before in zip(
        trained.named_parameters(), whole.parameters(), strict=True
    ):
        squares += before.grad.square().sum().item()
        torch.testing.assert_close(after, before - 0.1 * before.grad, msg=name)
    assert loss.item() == pytest.approx(expected.item())
    assert metadata["gradient_norm"].item() == pytest.approx(math.sqrt(squares))
    assert seen == int((advantages != 0).sum()) < 8
    assert metadata["reward"] == pytest.approx(rewards.mean().item())


def test_the_gradient_is_clipped_by_its_norm(tokenizer):
    _, _, metadata, _ = stepped(tokenizer, 2)
    trained, _, clipped, _ = stepped(tokenizer, 2, norm=0.01)
    assert clipped["gradient_norm"] == metadata["gradient_norm"] > 0.01
    moved = [
        (after - before).square().sum()
        for after, before in zip(
            trained.parameters(), model().parameters(), strict=True
        )
    ]
    assert torch.stack(moved).sum().sqrt().item() == pytest.approx(0.001, rel=1e-3)


def test_rollouts_that_cannot_be_cut_evenly_are_refused(tokenizer):
    with pytest.raises(ValueError, match="8 rollouts are no multiple of the 3"):
        stepped(tokenizer, 3)


def test_the_adapters_reach_every_function():
    spec = importlib.util.spec_from_file_location("adapters_2026", ADAPTERS)
    adapters = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapters)
    names = {
        name.removeprefix("run_")
        for name, value in vars(adapters).items()
        if inspect.isfunction(value)
    }
    assert names == set(F.__all__)
