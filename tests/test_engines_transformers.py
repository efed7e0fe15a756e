"""Generation and log-likelihoods with a transformers model."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    MistralConfig,
    MistralForCausalLM,
    RepetitionPenaltyLogitsProcessor,
)

from alignkit import models
from alignkit.engines.base import Sampling
from alignkit.engines.batching import reading_order, shared_prefix
from alignkit.engines.transformers import TransformersEngine, draw, penalized
from alignkit.errors import InputError, WorkError

PROMPTS = [
    "User: 8+2+1+2=?\nAssistant: <think>",
    "User: 8",
    "1+1=",
    "User: 8+2=?",
    "7",
    "User: 8+2+1+2=?\nAssistant:",
]
GREEDY = Sampling(temperature=0, max_new_tokens=16)


def build(kind: str = "digits", max_length: int = 128):
    spec = SimpleNamespace(
        tokenizer=kind,
        hidden_size=32,
        layers=2,
        heads=2,
        intermediate_size=64,
        init_std=0.2,
        max_length=max_length,
    )
    return models.build(spec, 3)


@pytest.fixture(scope="module")
def pair():
    return build()


def engine(pair, batch_size: int = 4) -> TransformersEngine:
    return TransformersEngine(*pair, name="tiny", batch_size=batch_size)


def texts(completions) -> list[list[str]]:
    return [[c.text for c in row] for row in completions]


def greedy_reference(model, tokenizer, prompt: str, tokens: int) -> list[int]:
    ids = tokenizer(prompt, return_tensors="pt")
    return model.generate(**ids, do_sample=False, max_new_tokens=tokens)[
        0, ids.input_ids.shape[1] :
    ].tolist()


def direct_logprobs(model, prompt_ids: list[int], ids: list[int]) -> list[float]:
    with torch.no_grad():
        logps = model(torch.tensor([prompt_ids + ids])).logits[0].log_softmax(-1)
    return [logps[len(prompt_ids) + k - 1, token].item() for k, token in enumerate(ids)]


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_greedy_equals_generate_for_prompts_of_mixed_length(
    pair, batch_size: int
) -> None:
    out = engine(pair, batch_size).generate(PROMPTS, GREEDY)
    for prompt, (completion,) in zip(PROMPTS, out, strict=True):
        assert list(completion.token_ids) == greedy_reference(*pair, prompt, 16)


def test_greedy_equals_generate_under_a_sliding_window() -> None:
    tokenizer = models.build_tokenizer("digits")
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=128, sliding_window=6, eos_token_id=1, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    prompts = [
        "User: 8+2+1+2=?",
        "User: 8+2+1+2=?\nAssistant: <think>8 10",
        "User: 8+2+1",
    ]
    out = engine((model, tokenizer)).generate(prompts, GREEDY)
    for prompt, (completion,) in zip(prompts, out, strict=True):
        assert list(completion.token_ids) == greedy_reference(
            model, tokenizer, prompt, 16
        )


def test_log_probs_are_the_models(pair) -> None:
    sampling = Sampling(temperature=0.7, max_new_tokens=12, seed=1, n=2, logprobs=True)
    for prompt, row in zip(
        PROMPTS, engine(pair).generate(PROMPTS, sampling), strict=True
    ):
        for completion in row:
            direct = direct_logprobs(
                pair[0], pair[1](prompt)["input_ids"], list(completion.token_ids)
            )
            assert completion.logprobs == pytest.approx(direct, abs=1e-4)


def test_a_seeded_sample_does_not_depend_on_its_batch(pair) -> None:
    sampling = Sampling(max_new_tokens=20, seed=5, n=3)
    together = engine(pair).generate(PROMPTS, sampling)
    assert texts(together) == texts(engine(pair, 32).generate(PROMPTS, sampling))
    backwards = engine(pair).generate(PROMPTS[::-1], sampling)[::-1]
    assert texts(together) == texts(backwards)
    assert texts(together[2:3]) == texts(engine(pair).generate(PROMPTS[2:3], sampling))


def test_samples_differ_by_number_seed_and_repetition_of_the_prompt(pair) -> None:
    sampling = Sampling(max_new_tokens=30, seed=5, n=2)
    (first, second), (third, _) = texts(
        engine(pair).generate(["User: 8"] * 2, sampling)
    )
    (other, _), *_ = texts(
        engine(pair).generate(["User: 8"], Sampling(max_new_tokens=30, seed=6, n=2))
    )
    assert len({first, second, third, other}) == 4


def test_generation_neither_reads_nor_moves_the_global_random_state(pair) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    engine(pair).generate(PROMPTS[:2], Sampling(max_new_tokens=8, seed=None))
    assert torch.equal(torch.get_rng_state(), state)


def test_text_ends_with_the_first_stop_string(pair) -> None:
    sampling = Sampling(max_new_tokens=100, seed=2, n=8, stop=("</answer>", "1"))
    for row in engine(pair, 16).generate(PROMPTS, sampling):
        for completion in row:
            ends = [
                completion.text.find(s) + len(s)
                for s in sampling.stop
                if s in completion.text
            ]
            if ends:
                assert (len(completion.text), completion.finish_reason) == (
                    min(ends),
                    "stop",
                )
            else:
                assert (
                    completion.finish_reason == "length"
                    or completion.token_ids[-1] == pair[1].eos_token_id
                )


def reciting(text: str):
    """A byte model that continues any byte of `text` with the next one, and the last
    with the end token.
    """
    model, tokenizer = build("bytes")
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert len(set(ids)) == len(ids)
    embeddings = torch.nn.functional.normalize(
        torch.randn(len(tokenizer), 32, generator=torch.Generator().manual_seed(0))
    )
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(embeddings)
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(len(tokenizer), 32))
        for now, following in itertools.pairwise(ids):
            model.lm_head.weight[following] = embeddings[now]
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model, tokenizer


@pytest.mark.parametrize(
    ("stop", "minimum", "text", "reason"),
    [
        ((), 0, "bcdé→fgh", "stop"),  # by the end token
        (("é→",), 0, "bcdé→", "stop"),  # five bytes, five tokens
        (("→f", "cd"), 0, "bcd", "stop"),  # the first in the text, not in the list
        (("cd", "bcd"), 0, "bcd", "stop"),
        (("cd",), 3, "bcdé→fgh", "stop"),  # wholly within the first three tokens
        (("dé",), 3, "bcdé", "stop"),  # begun there, ended later
        (("h",), 11, "bcdé→fgh", "stop"),
    ],
)
def test_stop_strings_by_the_byte(
    stop: tuple[str, ...], minimum: int, text: str, reason: str
) -> None:
    sampling = Sampling(
        temperature=0, max_new_tokens=12, min_new_tokens=minimum, stop=stop
    )
    (completion,) = engine(reciting("abcdé→fgh")).generate(["a"], sampling)[0]
    assert (completion.text, completion.finish_reason) == (text, reason)


def test_nothing_ends_a_completion_before_min_new_tokens(pair) -> None:
    everything = tuple("0123456789+-*/=?.,:() \n<")
    out = engine(pair).generate(
        PROMPTS,
        Sampling(max_new_tokens=40, min_new_tokens=12, seed=1, n=4, stop=everything),
    )
    lengths = [completion.tokens for row in out for completion in row]
    # the first token after that ends it, having a stop string in its text
    assert min(lengths) == 13
    assert not any(
        pair[1].eos_token_id in completion.token_ids[:12]
        for row in out
        for completion in row
    )


def test_finish_reasons_and_token_counts(pair) -> None:
    out = engine(pair).generate(PROMPTS, Sampling(max_new_tokens=25, seed=3, n=4))
    completions = [completion for row in out for completion in row]
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for completion in completions:
        assert completion.tokens == len(completion.token_ids)
        assert (completion.finish_reason == "stop") == (
            completion.token_ids[-1] == pair[1].eos_token_id
        )
        assert completion.finish_reason == "stop" or completion.tokens == 25
        assert models.END not in completion.text


def test_new_tokens_stop_where_the_context_ends() -> None:
    pair = build(max_length=20)
    (completion,) = engine(pair).generate(
        [PROMPTS[0]], Sampling(temperature=0, max_new_tokens=50, min_new_tokens=50)
    )[0]
    assert (completion.tokens, completion.finish_reason) == (20 - 15, "length")


def test_a_prompt_longer_than_the_context_is_refused_by_number_and_length() -> None:
    with pytest.raises(InputError, match=r"at most 12 tokens.*prompt 1 \(15 tokens\)"):
        engine(build(max_length=12)).generate(["User: 8", PROMPTS[0]], GREEDY)


def test_an_empty_prompt_is_refused(pair) -> None:
    with pytest.raises(InputError, match="number 1"):
        engine(pair).generate(["1", ""], GREEDY)


def test_messages_go_through_the_chat_template(pair) -> None:
    user = {"role": "user", "content": "8+2=?"}
    chats = [[user], [user, {"role": "assistant", "content": "<think>"}]]
    rendered = ["User: 8+2=?\nAssistant: ", "User: 8+2=?\nAssistant: <think>"]
    assert engine(pair).generate(chats, GREEDY) == engine(pair).generate(
        rendered, GREEDY
    )


def test_messages_without_a_chat_template_are_refused() -> None:
    model, tokenizer = build()
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        engine((model, tokenizer)).generate(
            [[{"role": "user", "content": "1"}]], GREEDY
        )


def test_each_prompt_is_reported_once_before_the_end(pair) -> None:
    reported: dict[int, list] = {}
    forwards = []
    hook = pair[0].register_forward_hook(lambda *_: forwards.append(len(reported)))
    sampling = Sampling(max_new_tokens=10, seed=1, n=3)
    out = engine(pair, 6).generate(
        PROMPTS, sampling, lambda index, done: reported.update({index: done})
    )
    hook.remove()
    assert reported == dict(enumerate(out))
    assert forwards[-1] > 0  # the model still ran when the first were reported


def test_finished_rows_leave_the_batch(pair) -> None:
    rows: list[int] = []
    hook = pair[0].register_forward_pre_hook(
        lambda _, __, kw: rows.append(len(kw["input_ids"])), with_kwargs=True
    )
    engine(pair, 32).generate(["User: 8"], Sampling(max_new_tokens=60, seed=1, n=32))
    hook.remove()
    assert rows[:2] == [1, 32]  # the prompt is read once for its 32 samples
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < 16


def test_a_model_in_training_is_used_as_it_is_and_left_as_it_was(pair) -> None:
    model, tokenizer = models.build(
        SimpleNamespace(
            tokenizer="digits",
            hidden_size=32,
            layers=2,
            heads=2,
            intermediate_size=64,
            init_std=0.2,
            max_length=128,
        ),
        3,
    )
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    model.gradient_checkpointing_enable()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    sampling = Sampling(max_new_tokens=12, seed=1)
    assert texts(engine((model, tokenizer)).generate(PROMPTS, sampling)) == texts(
        engine(pair).generate(PROMPTS, sampling)
    )
    assert [module.training for module in model.modules()] == modes
    # gradients still flow
    model(**tokenizer("1+1=", return_tensors="pt")).logits.sum().backward()
    assert model.model.layers[1].mlp.up_proj.weight.grad.abs().sum() > 0


def test_modes_are_restored_after_an_error(pair) -> None:
    def fail(*_) -> None:
        raise KeyboardInterrupt

    pair[0].train()
    with pytest.raises(KeyboardInterrupt):
        engine(pair).generate(PROMPTS, GREEDY, fail)
    assert all(module.training for module in pair[0].modules())
    pair[0].eval()


def test_a_lora_model_generates_with_its_adapter() -> None:
    model, tokenizer = build()
    plain = texts(engine((model, tokenizer)).generate(PROMPTS, GREEDY))
    tuned = models.add_lora(model, {"r": 4, "target_modules": "all-linear"})
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    out = engine((tuned, tokenizer)).generate(PROMPTS, GREEDY)
    assert texts(out) != plain
    assert list(out[0][0].token_ids) == greedy_reference(
        tuned, tokenizer, PROMPTS[0], 16
    )


def test_a_diverged_model_is_an_error_not_a_text() -> None:
    model, tokenizer = build()
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    for sampling in (GREEDY, Sampling(max_new_tokens=4, seed=1)):
        with pytest.raises(WorkError, match="diverged"):
            engine((model, tokenizer)).generate(PROMPTS, sampling)


def greedily(model, ids: list[int], count: int) -> list[int]:
    said: list[int] = []
    for _ in range(count):
        with torch.inference_mode():
            logits = model(torch.tensor([ids + said])).logits[0, -1]
        said.append(int(logits.argmax()))
    return said


@pytest.mark.parametrize("batch_size", [1, 8])
def test_loglikelihoods_equal_a_direct_computation(pair, batch_size: int) -> None:
    model, tokenizer = pair
    requests = [
        ("User: 8+2=", ("1", "10", "?")),
        ("User: 8+2=?\nAssistant: <think>", ("8 10</think> <answer>10", "</think>")),
        ("1", ("2", "3")),
    ]
    for (prompt, choices), got in zip(
        requests, engine(pair, batch_size).loglikelihoods(requests), strict=True
    ):
        ids = tokenizer(prompt)["input_ids"]
        expected = [
            sum(direct_logprobs(model, ids, tokenizer(choice)["input_ids"]))
            for choice in choices
        ]
        assert [one.logprob for one in got] == pytest.approx(expected, abs=1e-4)
        for choice, one in zip(choices, got, strict=True):
            said = tokenizer(choice)["input_ids"]
            assert one.greedy == (greedily(model, ids, len(said)) == said)


def test_single_token_choices_share_one_pass_over_the_prompt(pair) -> None:
    rows: list[int] = []
    hook = pair[0].register_forward_pre_hook(
        lambda _, __, kw: rows.append(len(kw["input_ids"])), with_kwargs=True
    )
    engine(pair).loglikelihoods([("User: 8+2=", ("1", "2", "3", "4"))])
    hook.remove()
    assert rows == [1]


def test_an_empty_prompt_is_the_start_token(pair) -> None:
    model, tokenizer = pair
    ((got,),) = engine(pair).loglikelihoods([("", ("12",))])
    start = [tokenizer.bos_token_id or tokenizer.eos_token_id]
    expected = sum(direct_logprobs(model, start, tokenizer("12")["input_ids"]))
    assert got.logprob == pytest.approx(expected, abs=1e-4)


def test_an_empty_choice_is_refused(pair) -> None:
    with pytest.raises(InputError, match="request 0 has an empty choice"):
        engine(pair).loglikelihoods([("1", ("2", ""))])


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    drawn = draw(logits.expand(20_000, -1), Sampling(temperature=0.5), uniform)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, (logits[0] / 0.5).softmax(-1), atol=1e-3)


@pytest.mark.parametrize(
    ("sampling", "support"),
    [
        (Sampling(top_k=2), {0, 2}),
        (Sampling(top_k=100), {0, 1, 2, 3}),
        (Sampling(top_p=0.62), {0}),  # 0.625 of the mass lies on the first
        (Sampling(top_p=0.63), {0, 2}),
        (Sampling(top_k=2, top_p=0.72), {0}),  # 0.73 of what top_k left
    ],
)
def test_top_k_and_top_p_cut_the_tail(sampling: Sampling, support: set[int]) -> None:
    logits = torch.tensor([[2.0, 0.3, 1.0, -1.0]]).expand(4000, -1)
    uniform = torch.arange(4000, dtype=torch.float64) / 4000
    assert set(draw(logits, sampling, uniform).tolist()) == support


def test_a_token_of_no_weight_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    uniform = torch.tensor([0.0, 1 - 2**-32], dtype=torch.float64)
    assert draw(logits, Sampling(), uniform).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens is 9, more than"),
        ({"n": 0}, "n must be at least 1"),
        ({"min_p": 1.5}, "min_p must be at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"stop": ("",)}, "stop string must not be empty"),
    ],
)
def test_impossible_sampling_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**wrong)


def test_prompts_of_one_length_order_are_read_longest_first() -> None:
    encoded = [[5] * 3, [6] * 9, [7] * 6]
    assert reading_order(encoded, 2) == [1, 2, 0]


def test_prompts_with_a_long_common_beginning_are_read_together() -> None:
    shots = {name: [name] * 50 for name in (1, 2)}
    encoded = [
        shots[1] + [8] * 3,
        shots[2] + [8] * 9,
        shots[1] + [9] * 8,
        shots[2] + [9] * 2,
    ]
    assert reading_order(encoded, 2) == [2, 0, 1, 3]


def test_a_shared_prefix_leaves_every_prompt_a_token() -> None:
    assert shared_prefix([[1, 2, 3], [1, 2]]) == 1
    assert shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert shared_prefix([[4], [5]]) == 0


def test_the_reserved_cache_holds_what_joining_would() -> None:
    from alignkit.engines.cache import append

    generator = torch.Generator().manual_seed(0)
    joined = kept = torch.empty(0)
    moved = 0
    for step, count in enumerate([5, 1, 1, 70, *[1] * 70, 3]):
        rows = 3 if step < 40 else 2
        if step == 40:  # rows that have ended leave
            joined, kept = joined[1:], kept.index_select(0, torch.tensor([1, 2]))
        new = torch.randn(rows, 2, count, 4, generator=generator)
        before = kept.data_ptr()
        joined = torch.cat([joined, new], dim=-2) if joined.numel() else new
        kept = append(kept, new)
        moved += kept.data_ptr() != before
        assert torch.equal(kept, joined)
    assert moved == 3  # for the first, for the long one and after the selection


@pytest.mark.parametrize("min_p", [0.0, 0.2, 0.9, 1.0])
def test_min_p_keeps_the_tokens_that_transformers_keeps(min_p: float) -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    uniform = torch.linspace(0, 0.999, 400, dtype=torch.float64)
    drawn = draw(logits.expand(400, -1), Sampling(min_p=min_p), uniform)
    theirs = MinPLogitsWarper(min_p)(None, logits.clone())
    assert set(drawn.tolist()) == set(theirs[0].isfinite().nonzero().flatten().tolist())


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(2))
    texts = [[1, 4, 4], [0, 8, 2]]
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor(texts), logits.clone())
    assert torch.equal(penalized(logits, texts, 1.7), theirs)


def test_a_repetition_penalty_reaches_the_text_and_not_the_log_probs(pair) -> None:
    plain = Sampling(temperature=0, max_new_tokens=20, logprobs=True)
    [[loud]] = engine(pair).generate(PROMPTS[:1], plain)
    [[shy]] = engine(pair).generate(
        PROMPTS[:1], replace(plain, repetition_penalty=50.0)
    )
    assert shy.token_ids != loud.token_ids
    new = [token for token in shy.token_ids if token != loud.token_ids[-1]]
    assert len(set(new)) == len(new)  # so strong a penalty lets no token come twice
    assert all(logp <= 0 for logp in shy.logprobs)
