"""The offline engine beside the transformers engine, on one small trained model."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from alignkit import models
from alignkit.engines.base import Sampling
from alignkit.errors import InputError

PROMPTS = [
    f"User: {a}+{b}+{c}+4=?\nAssistant: <think>"
    for a, b, c in itertools.product(range(0, 9, 2), (1, 7), (3, 8))
]
CHAT = [{"role": "user", "content": "1+1=?"}]
GREEDY = Sampling(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def engine(trained):
    from alignkit.engines.vllm import VLLMEngine
    from alignkit.engines.vllm_start import Limits

    started = VLLMEngine.start(
        str(trained), limits=Limits(gpu_memory_utilization=0.3, max_num_seqs=64)
    )
    yield started
    started.close()


@pytest.fixture(scope="module")
def reference(trained):
    from alignkit.engines.transformers import TransformersEngine

    return TransformersEngine(
        *models.load(str(trained), for_training=False), name=str(trained)
    )


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(temperature=0, max_new_tokens=24, stop=("</answer>",)),
        Sampling(temperature=0, max_new_tokens=24, stop=("1", "think> <ans")),
        Sampling(temperature=0, max_new_tokens=3),
        Sampling(temperature=0, max_new_tokens=20, min_new_tokens=18),
        Sampling(temperature=0, max_new_tokens=1000),
    ],
    ids=[
        "plain",
        "stop",
        "stop inside",
        "short",
        "min tokens",
        "to the end of the context",
    ],
)
def test_greedy_completions_equal_those_of_transformers_token_for_token(
    engine, reference, sampling
):
    prompts = [*PROMPTS, CHAT]
    ours, theirs = (
        engine.generate(prompts, sampling),
        reference.generate(prompts, sampling),
    )
    for prompt, (mine,), (his,) in zip(prompts, ours, theirs, strict=True):
        assert (mine.text, mine.token_ids, mine.finish_reason, mine.tokens) == (
            his.text,
            his.token_ids,
            his.finish_reason,
            his.tokens,
        ), prompt


def test_logprobs_equal_those_of_transformers_whatever_the_temperature(
    engine, reference
):
    for temperature in (0.0, 0.5):
        sampling = Sampling(
            temperature=temperature, max_new_tokens=16, logprobs=True, seed=1, top_k=3
        )
        for (completion,), prompt in zip(
            engine.generate(PROMPTS[:4], sampling), PROMPTS[:4], strict=True
        ):
            total = sum(completion.logprobs)
            ended = (
                completion.text
                if completion.finish_reason == "length"
                else completion.text + "<|end|>"
            )
            ((expected,),) = reference.loglikelihoods([(prompt, (ended,))])
            assert len(completion.logprobs) == completion.tokens
            assert total == pytest.approx(expected.logprob, abs=1e-3)


def test_loglikelihoods_equal_those_of_transformers(engine, reference):
    requests = [
        (PROMPTS[0], ("1", "2", "</think>")),
        (PROMPTS[1], ("1 2", "9")),
        (CHAT, ("<answer>1", "22", "3")),
    ]
    for ours, theirs in zip(
        engine.loglikelihoods(requests), reference.loglikelihoods(requests), strict=True
    ):
        sums = [[one.logprob for one in side] for side in (ours, theirs)]
        assert sums[0] == pytest.approx(sums[1], abs=1e-3)
        assert [one.greedy for one in ours] == [one.greedy for one in theirs]


def test_every_sampling_option_reaches_vllm(engine):
    from alignkit.engines.vllm import _sampling_params

    given = Sampling(
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        max_new_tokens=99,
        min_new_tokens=7,
        stop=("a", "b"),
        n=3,
        logprobs=True,
    )
    params = _sampling_params(given, 123, engine._prompts.tokenizer)
    assert (params.temperature, params.top_p, params.top_k, params.n, params.seed) == (
        0.7,
        0.9,
        40,
        3,
        123,
    )
    assert (params.max_tokens, params.min_tokens, params.stop) == (99, 7, ["a", "b"])
    assert (params.include_stop_str_in_output, params.logprobs) == (True, 0)
    plain = _sampling_params(Sampling(), None, engine._prompts.tokenizer)
    assert plain.logprobs is None


def test_a_stop_string_that_is_a_special_token_is_handed_over_as_the_token(engine):
    from alignkit.engines.vllm import _sampling_params

    tokenizer = engine._prompts.tokenizer
    given = Sampling(stop=(tokenizer.eos_token, "</answer>"))
    params = _sampling_params(given, None, tokenizer)
    assert params.stop == ["</answer>"]
    assert params.stop_token_ids == [tokenizer.eos_token_id]


def test_a_seed_fixes_a_completion_whatever_is_asked_beside_it(engine):
    sampling = Sampling(temperature=1.0, n=4, max_new_tokens=12, seed=5)
    alone = engine.generate(PROMPTS[2:3], sampling)
    among = engine.generate(PROMPTS, sampling)
    assert alone[0] == among[2]
    assert len({completion.text for completion in alone[0]}) > 1
    other = engine.generate(
        PROMPTS[2:3], Sampling(temperature=1.0, n=4, max_new_tokens=12, seed=6)
    )
    assert other != alone


def test_the_same_prompt_twice_is_sampled_twice(engine):
    sampling = Sampling(temperature=1.0, n=4, max_new_tokens=12, seed=5)
    first, second = engine.generate([PROMPTS[0]] * 2, sampling)
    assert first != second


def test_several_greedy_completions_are_the_same_one(engine, reference):
    sampling = Sampling(temperature=0, max_new_tokens=24, n=3)
    ours, theirs = (
        engine.generate(PROMPTS[:2], sampling),
        reference.generate(PROMPTS[:2], sampling),
    )
    assert [[one.text for one in row] for row in ours] == [
        [one.text for one in row] for row in theirs
    ]


def test_each_prompt_is_reported_once_as_it_ends(engine):
    seen = {}
    sampling = Sampling(temperature=1.0, n=2, max_new_tokens=12, seed=0)
    results = engine.generate(
        PROMPTS, sampling, lambda index, done: seen.setdefault(index, []).append(done)
    )
    assert seen == {index: [done] for index, done in enumerate(results)}


def test_an_error_of_the_caller_leaves_nothing_running(engine):
    def fail(index, done):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        engine.generate(PROMPTS, Sampling(max_new_tokens=24), fail)
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert len(engine.generate(PROMPTS[:1], GREEDY)) == 1


def test_a_prompt_longer_than_the_context_is_refused_not_cut(engine):
    with pytest.raises(InputError, match="reads at most 64 tokens"):
        engine.generate(["1" * 64], GREEDY)


def test_a_second_engine_starts_after_the_first_and_puts_an_adapter_on_its_base(
    engine, trained, tmp_path
):
    """Last in this file: it closes the shared engine, whose memory it needs."""
    import torch

    from alignkit.engines.transformers import TransformersEngine
    from alignkit.engines.vllm import VLLMEngine

    engine.close()
    model, tokenizer = models.load(
        str(trained),
        dtype="float32",
        lora={"r": 4, "alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    adapter = Path(tmp_path / "adapter")
    model.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    expected = TransformersEngine(model, tokenizer, name="merged").generate(
        PROMPTS, GREEDY
    )
    plain = TransformersEngine(
        *models.load(str(trained), for_training=False), name="x"
    ).generate(PROMPTS, GREEDY)
    assert expected != plain
    tuned = VLLMEngine.start(str(adapter), dtype="float32")
    assert tuned.generate(PROMPTS, GREEDY) == expected
    tuned.close()


def test_a_context_longer_than_the_models_is_refused_with_the_numbers(trained):
    from alignkit.engines.vllm import VLLMEngine
    from alignkit.engines.vllm_start import Limits

    with pytest.raises(
        InputError,
        match=(
            r"max_model_len.*In force: gpu_memory_utilization=0.9, max_model_len=4096"
        ),
    ):
        VLLMEngine.start(str(trained), limits=Limits(max_model_len=4096))
