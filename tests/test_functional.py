"""The CS336 functions against independent references: plain Python loops in float64,
and autograd.
"""

import json
import math

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from alignkit import course as F

TEMPLATE = "Task: {instruction}\nReply: {response}\n"
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<bos>", "<eos>", "Task", "Reply", ":", "a", "b", "c", "d"]
    core = Tokenizer(
        models.WordLevel(
            {word: index for index, word in enumerate(words)}, unk_token="d"
        )
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split("<eos>", "isolated"),
            pre_tokenizers.Split(":", "isolated"),
        ]
    )
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=10,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return (
        Qwen2ForCausalLM(config).double().eval(),
        Qwen2ForCausalLM(config).double().eval(),
    )


def batch(rows=3, width=5, seed=0, dtype=torch.float64, lengths=(5, 2, 1)):
    generator = torch.Generator().manual_seed(seed)
    values = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 3
    old = values + 0.4 * torch.randn(
        rows, width, generator=generator, dtype=torch.float64
    )
    mask = torch.arange(width)[None] < torch.tensor(lengths[:rows])[:, None]
    return values.to(dtype), old.to(dtype), mask


def test_tokenizing_aligns_the_mask_with_the_labels(tokenizer):
    batch = F.tokenize_prompt_and_output(["a b", "c"], ["c", "d d d d"], tokenizer)
    assert batch["input_ids"].tolist() == [[1, 6, 7, 8, 0], [1, 8, 9, 9, 9]]
    assert batch["labels"].tolist() == [[6, 7, 8, 0, 0], [8, 9, 9, 9, 9]]
    assert batch["response_mask"].tolist() == [
        [False, False, True, False, False],
        [False, True, True, True, True],
    ]


def test_tokenizing_an_empty_output_masks_nothing_in(tokenizer):
    assert not F.tokenize_prompt_and_output(["a"], [""], tokenizer)[
        "response_mask"
    ].any()


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 1, 2), (4, 11)])
def test_entropy_is_minus_p_log_p(shape):
    logits = (
        torch.randn(
            shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        * 4
    )
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(F.compute_entropy(logits), expected)


def test_entropy_survives_extreme_logits():
    logits = torch.tensor(
        [[1e4, -1e4, 0.0], [0.0, -math.inf, 0.0], [-1e30, -1e30, -1e30]],
        requires_grad=True,
    )
    entropy = F.compute_entropy(logits)
    torch.testing.assert_close(entropy, torch.tensor([0.0, math.log(2), math.log(3)]))
    entropy.sum().backward()
    assert logits.grad.isfinite().all()


def test_entropy_of_bfloat16_logits_is_computed_in_float32():
    logits = torch.zeros(1, 1000, dtype=torch.bfloat16)
    assert F.compute_entropy(logits).dtype == torch.float32
    assert F.compute_entropy(logits).item() == pytest.approx(math.log(1000), abs=1e-5)


def test_response_log_probs_follow_the_models_softmax(models):
    ids = torch.tensor([[1, 6, 7, 8], [1, 8, 9, 9]])
    labels = torch.tensor([[6, 7, 8, 2], [8, 9, 9, 2]])
    result = F.get_response_log_probs(models[0], ids, labels, return_token_entropy=True)
    logits = models[0](ids).logits
    for row in range(2):
        for column in range(4):
            weights = [math.exp(value) for value in logits[row, column].tolist()]
            expected = math.log(weights[labels[row, column]] / sum(weights))
            assert result["log_probs"][row, column].item() == pytest.approx(expected)
    assert (
        result["log_probs"].requires_grad and not result["token_entropy"].requires_grad
    )
    assert "token_entropy" not in F.get_response_log_probs(models[0], ids, labels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_masked_sums_and_means_agree_with_plain_loops(dim, dtype):
    values, _, mask = batch(dtype=dtype)
    rows = values.double().tolist()
    kept = mask.tolist()
    cells = [(r, c) for r in range(3) for c in range(5) if kept[r][c]]
    lines = {0: [[x for x in cells if x[1] == c] for c in range(5)], None: [cells]}.get(
        dim, [[x for x in cells if x[0] == r] for r in range(3)]
    )
    sums = torch.tensor(
        [sum(rows[r][c] for r, c in line) for line in lines], dtype=torch.float64
    ).squeeze()
    counts = torch.tensor([len(line) for line in lines], dtype=torch.float64).squeeze()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(
        F.masked_normalize(values, mask, dim, 7.0).double(), sums / 7, **tolerance
    )
    torch.testing.assert_close(
        F.masked_mean(values, mask, dim).double(), sums / counts, **tolerance
    )
    assert F.masked_mean(values, mask, dim).dtype == dtype


def test_an_empty_mask_sums_to_zero_and_has_no_mean():
    values = torch.ones(2, 3)
    assert F.masked_normalize(values, torch.zeros(2, 3)).item() == 0
    assert F.masked_mean(values, torch.zeros(2, 3), dim=1).isnan().all()


def test_padding_is_never_read():
    values, _, mask = batch()
    spoiled = values.masked_fill(~mask, math.nan)
    torch.testing.assert_close(
        F.masked_mean(spoiled, mask, 1), F.masked_mean(values, mask, 1)
    )


def test_the_handouts_example_of_length_normalisation():
    """Lengths 4 and 7, advantage 2, ratio 1: equal weight to sequences, or equal weight
    to tokens.
    """
    mask = torch.arange(7)[None] < torch.tensor([4, 7])[:, None]
    ratio = torch.ones(2, 7, requires_grad=True)
    mean = F.masked_mean(ratio * 2, mask, dim=1)
    assert mean.tolist() == [2, 2]
    mean.sum().backward()
    assert ratio.grad[0, 0].item() == pytest.approx(2 / 4) and ratio.grad[
        1, 0
    ].item() == pytest.approx(2 / 7)
    ratio.grad = None
    normalized = F.masked_normalize(ratio * 2, mask, dim=1, normalize_constant=7)
    assert normalized.tolist() == pytest.approx([8 / 7, 2])
    normalized.sum().backward()
    assert torch.equal(ratio.grad, torch.where(mask, 2 / 7, 0.0))


@pytest.mark.parametrize("lengths", [(5, 2, 1), (0, 3, 5), (0, 0, 0), (4,)])
@pytest.mark.parametrize("constant", [1.0, 42.0])
def test_sft_step_sums_tokens_and_averages_sequences(lengths, constant):
    logps, _, mask = batch(rows=len(lengths), lengths=lengths)
    logps.requires_grad_()
    loss, _ = F.sft_microbatch_train_step(logps, mask, 4, constant)
    rows = [
        [logps[r, t].item() for t in range(lengths[r])] for r in range(len(lengths))
    ]
    assert loss.item() == pytest.approx(
        -sum(sum(row) for row in rows) / constant / len(rows) / 4
    )
    torch.testing.assert_close(
        logps.grad,
        torch.where(mask, -1.0 / (constant * len(lengths) * 4), 0.0).double(),
    )


def reference_advantages(rewards, size, eps, by_std):
    result = []
    for start in range(0, len(rewards), size):
        group = rewards[start : start + size]
        mean = sum(group) / size
        std = (
            math.sqrt(sum((x - mean) ** 2 for x in group) / (size - 1))
            if size > 1
            else 0.0
        )
        result += [(x - mean) / (std + eps) if by_std else x - mean for x in group]
    return result


@pytest.mark.parametrize("by_std", [True, False])
@pytest.mark.parametrize(
    ("rewards", "size"),
    [([0.2, 0.5, 0.0, 0.4, 1, 1, 0, 1], 4), ([1, 1, 1], 3), ([1, 0, 3], 1)],
)
def test_group_rewards_use_the_unbiased_deviation(rewards, size, by_std):
    def reward_fn(response, truth):
        assert truth == "t"
        value = rewards[int(response)]
        return {"reward": value, "format_reward": 1.0, "answer_reward": value}

    names = [str(index) for index in range(len(rewards))]
    advantages, raw, metadata = F.compute_group_normalized_rewards(
        reward_fn, names, ["t"] * len(names), size, 1e-6, by_std
    )
    expected = torch.tensor(reference_advantages(rewards, size, 1e-6, by_std))
    torch.testing.assert_close(advantages, expected, rtol=1e-4, atol=1e-6)
    assert raw.tolist() == pytest.approx(rewards)
    assert metadata["reward"] == pytest.approx(sum(rewards) / len(rewards))
    assert metadata["format_reward"] == 1


def test_a_completion_nobody_could_score_is_left_out_of_its_groups_statistics():
    advantages = F.group_normalize(
        torch.tensor([1.0, math.nan, 0.0, 1.0, math.nan, math.nan]), 3
    )
    torch.testing.assert_close(
        advantages[[0, 2]],
        torch.tensor(reference_advantages([1.0, 0.0], 2, 1e-6, True)),
        rtol=1e-4,
        atol=1e-6,
    )
    assert advantages[3] == 0 and advantages[[1, 4, 5]].isnan().all()


def reference_loss(kind, advantage, logp, old, clip):
    """Value and derivative in the log-prob, for one token."""
    if kind in ("no_baseline", "reinforce_with_baseline"):
        return -advantage * logp, -advantage
    ratio = math.exp(logp - old)
    clipped = min(max(ratio, 1 - clip), 1 + clip)
    if kind == "grpo_no_clip" or ratio * advantage <= clipped * advantage:
        return -ratio * advantage, -ratio * advantage
    return -clipped * advantage, 0.0


@pytest.mark.parametrize("kind", F.POLICY_GRADIENT_LOSSES)
@pytest.mark.parametrize("lengths", [(5, 2, 1), (0, 5, 3), (1,)])
@pytest.mark.parametrize("clip", [0.1, 10.0])
def test_policy_gradient_step_matches_plain_loops_in_value_and_gradient(
    kind, lengths, clip
):
    rows = len(lengths)
    logps, old, mask = batch(rows=rows, lengths=lengths, seed=3)
    logps.requires_grad_()
    advantages = torch.tensor([[1.5], [-2.0], [0.5]], dtype=torch.float64)[:rows]
    rewards = torch.tensor([[1.0], [0.0], [0.3]], dtype=torch.float64)[:rows]
    loss, _ = F.grpo_microbatch_train_step(
        logps,
        mask,
        2,
        kind,
        raw_rewards=rewards,
        advantages=advantages,
        old_log_probs=old,
        cliprange=clip,
    )
    value, gradient = 0.0, torch.zeros_like(old)
    for row in range(rows):
        weight = (rewards if kind == "no_baseline" else advantages)[row].item()
        for token in range(lengths[row]):
            one, slope = reference_loss(
                kind, weight, logps[row, token].item(), old[row, token].item(), clip
            )
            value += one / lengths[row] / rows / 2
            gradient[row, token] = slope / lengths[row] / rows / 2
    assert loss.item() == pytest.approx(value)
    torch.testing.assert_close(logps.grad, gradient)


def test_the_clip_mask_marks_where_the_clipped_side_wins():
    ratio = torch.tensor([[1.5, 0.5, 1.0], [1.5, 0.5, 1.0]]).log()
    advantages = torch.tensor([[1.0], [-1.0]])
    _, metadata = F.compute_grpo_clip_loss(advantages, ratio, torch.zeros(2, 3), 0.2)
    assert metadata["clipped"].tolist() == [[True, False, False], [False, True, False]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", F.POLICY_GRADIENT_LOSSES)
def test_policy_losses_keep_the_dtype_and_stay_finite_far_down(kind, dtype):
    logps = torch.tensor([[-1e4, -80.0, 0.0]], dtype=dtype, requires_grad=True)
    old = torch.tensor([[-1e4, -1e-3, 0.0]], dtype=dtype)
    one = torch.ones(1, 1, dtype=dtype)
    loss, _ = F.compute_policy_gradient_loss(logps, kind, one, -one, old, 0.2)
    loss.sum().backward()
    assert loss.dtype == dtype and loss.isfinite().all() and logps.grad.isfinite().all()


def test_unknown_loss_types_and_missing_tensors_are_named():
    with pytest.raises(ValueError, match="'grpo_clipp' is unknown; known: no_baseline"):
        F.compute_policy_gradient_loss(torch.zeros(1, 1), "grpo_clipp")
    with pytest.raises(ValueError, match="'grpo_clip' needs old_log_probs"):
        F.compute_policy_gradient_loss(
            torch.zeros(1, 1), "grpo_clip", advantages=torch.zeros(1, 1)
        )


def test_dpo_loss_is_minus_log_sigmoid_of_the_margin(models, tokenizer):
    policy, reference = models
    loss = F.compute_per_instance_dpo_loss(
        policy, reference, tokenizer, 0.5, "a b", "c", "d d", TEMPLATE
    )
    margin = 0.0
    for answer, sign in (([8], 1), ([9, 9], -1)):
        prompt = [1, 3, 5, 6, 7, 4, 5]
        ids = [*prompt, *answer, 2]
        for model, part in ((policy, sign), (reference, -sign)):
            logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            margin += part * sum(
                logps[at - 1, ids[at]].item() for at in range(len(prompt), len(ids))
            )
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * margin))))
    loss.backward()
    assert all(weight.grad is None for weight in reference.parameters())
    policy.zero_grad()


def test_dpo_loss_stays_finite_when_the_margin_is_huge():
    loss = F.dpo_loss(
        *torch.tensor([[-1e4, 0.0], [0.0, -1e4], [0.0, 0.0], [0.0, 0.0]]), beta=1.0
    )
    torch.testing.assert_close(loss, torch.tensor([1e4, 0.0]))


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "sft.jsonl"
    rows = [
        {"prompt": "a", "response": "b b"},
        {"prompt": "a b", "response": "{instruction}"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


def test_packing_joins_by_eos_and_drops_the_tail(tokenizer, documents):
    stream = [1, 3, 5, 6, 4, 5, 7, 7, 2, 1, 3, 5, 6, 7, 4, 5, 9, 2]
    packed = F.get_packed_sft_dataset(tokenizer, documents, 5, False, TEMPLATE)
    assert [row["input_ids"].tolist() for row in packed] == [
        stream[0:5],
        stream[5:10],
        stream[10:15],
    ]
    assert [row["labels"].tolist() for row in packed] == [
        stream[1:6],
        stream[6:11],
        stream[11:16],
    ]
    assert len(F.get_packed_sft_dataset(tokenizer, documents, 17, False, TEMPLATE)) == 1
    assert len(F.get_packed_sft_dataset(tokenizer, documents, 18, False, TEMPLATE)) == 0


def test_packing_shuffles_documents_by_the_seed(tokenizer, documents):
    def first(seed):
        torch.manual_seed(seed)
        return F.get_packed_sft_dataset(tokenizer, documents, 17, True, TEMPLATE)[0][
            "input_ids"
        ].tolist()

    orders = [first(seed) for seed in range(8)]
    assert len({tuple(order) for order in orders}) == 2
    assert first(3) == orders[3]


def test_a_template_without_a_response_is_refused(tokenizer, documents):
    with pytest.raises(ValueError, match=r"no \{response\}"):
        F.get_packed_sft_dataset(tokenizer, documents, 5, False, "Task: {instruction}")


def test_batches_cover_the_dataset_once(tokenizer, documents):
    batches = list(
        F.iterate_batches(
            F.get_packed_sft_dataset(tokenizer, documents, 5, False, TEMPLATE), 2, True
        )
    )
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(2, 5), (1, 5)]
    assert sorted(
        row[0] for batch in batches for row in batch["input_ids"].tolist()
    ) == [1, 3, 5]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is B. There is only one.", "B"),
        ("the correct answer is: (c)", "C"),
        ("The correct answer is **D**", "D"),
        ("A", "A"),
        ("B) both", "B"),
        ("The correct answer is 10000 polyomaviruses.", None),
        ("The correct answer is Because", None),
        ("A good question.", None),
        ("", None),
    ],
)
def test_mmlu_answers(text, letter):
    assert F.parse_mmlu_response({}, text) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48/2 = 24 in May, 48+24 = 72 in all.", "72"),
        ("The answer is 1,234,567.", "1234567"),
        ("it costs $1,234.50", "1234.50"),
        ("The balance is -$5", "-5"),
        ("so x = -3.25", "-3.25"),
        ("(\u22127)", "-7"),
        ("10-3", "3"),
        ("between 1 and .5", ".5"),
        ("1,2345", "2345"),
        ("seventy-two clips", None),
        ("", None),
    ],
)
def test_gsm8k_answers_keep_sign_decimals_and_thousands(text, number):
    assert F.parse_gsm8k_response(text) == number


def test_a_long_hostile_text_is_parsed_at_once():
    assert F.parse_gsm8k_response("1," * 200_000 + "7") == "7"


def test_what_moved_to_the_course_module_still_answers_under_its_old_name():
    from alignkit import functional

    with pytest.warns(DeprecationWarning, match=r"alignkit\.course\.iterate_batches"):
        assert functional.iterate_batches is F.iterate_batches
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        functional.nonsense  # noqa: B018
