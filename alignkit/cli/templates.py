"""The files that `align plugins new` writes; NAME stands for the plugin's name."""

from __future__ import annotations

_TEST_HEAD = '''"""The NAME plugin does what it says."""

from pathlib import Path

from alignkit import load_kit

KIT = load_kit(Path(__file__).parents[1])


'''

_REWARD = '''"""A reward: how good one response is."""

from alignkit import Reward, Score, hookimpl


def NAME(response: str, truth: str, *, max_words: int = 5) -> Score:
    """1 when the truth stands in the response and the response has at most `max_words` words."""
    found = truth in response
    return Score(float(found and len(response.split()) <= max_words), status="ok" if found else "wrong")


@hookimpl
def align_rewards():
    yield Reward("NAME", NAME)
'''

_REWARD_TEST = (
    _TEST_HEAD
    + """def test_a_short_right_answer_is_rewarded():
    reward = KIT.get("reward", "NAME").value.function
    assert reward("it is 42", "42").reward == 1.0
    assert reward("it is, after a very long thought, 42", "42").reward == 0.0
"""
)

_LOSS = '''"""A policy-gradient loss, per token; the trainer masks, reduces and scales it."""

from alignkit import Loss, hookimpl


def NAME(batch, *, cliprange: float = 0.2):
    """The clipped surrogate of PPO (arXiv 1707.06347, equation 7), negated: (B, T)."""
    ratio = (batch.logps - batch.old_logps).exp()
    advantages = batch.advantages.unsqueeze(1)
    clipped = ratio.clamp(1 - cliprange, 1 + cliprange)
    return -(ratio * advantages).minimum(clipped * advantages)


@hookimpl
def align_losses():
    yield Loss("NAME", NAME, methods=("grpo",))
'''

_LOSS_TEST = (
    _TEST_HEAD
    + """def test_on_policy_the_loss_is_minus_the_advantage():
    import torch
    from alignkit import PolicyBatch

    logps = torch.randn(2, 3)
    batch = PolicyBatch(
        logps=logps, old_logps=logps, mask=torch.ones(2, 3, dtype=torch.bool),
        advantages=torch.tensor([1.0, -2.0]), rewards=torch.tensor([1.0, 0.0]),
    )
    loss = KIT.get("loss", "NAME").value.function(batch)
    assert torch.allclose(loss, torch.tensor([[-1.0], [2.0]]).expand(2, 3))
"""
)

_EVAL = '''"""An eval: samples from rows, and a score for each response."""

from alignkit import Eval, Sample, Score, hookimpl


def samples(rows, render):
    """One sample per row of a file with the columns `question` and `truth`."""
    for number, row in enumerate(rows):
        yield Sample(id=str(number), prompt=render(row), truth=str(row["truth"]))


def score(sample: Sample, response: str) -> Score:
    """1 when the last word of the response is the truth."""
    words = response.split()
    if not words:
        return Score(0.0, status="unparsed")
    return Score(float(words[-1] == sample.truth))


@hookimpl
def align_evals():
    yield Eval(
        name="NAME",
        samples=samples,
        score=score,
        data={"dataset": "arithmetic", "split": "test"},
        prompt="question_only",
        sampling={"temperature": 0.0, "max_new_tokens": 64},
    )
'''

_EVAL_TEST = (
    _TEST_HEAD
    + """def test_the_last_word_decides():
    from alignkit import Sample

    score = KIT.get("eval", "NAME").value.score
    sample = Sample(id="0", prompt="1+1=?", truth="2")
    assert score(sample, "it is 2").reward == 1.0
    assert score(sample, "").status == "unparsed"
"""
)

_JUDGE = '''"""A judge: a model behind an OpenAI-compatible endpoint."""

from alignkit import Judge, hookimpl


@hookimpl
def align_judges():
    yield Judge(
        name="NAME",
        base_url="http://127.0.0.1:8000/v1",
        key=None,  # the environment variable that holds the key; never the key itself
        model="my-model",
        price=None,  # US dollars per million tokens
    )
'''

_JUDGE_TEST = (
    _TEST_HEAD
    + """def test_the_judge_names_an_endpoint_and_a_model():
    judge = KIT.get("judge", "NAME").value
    assert judge.base_url.startswith("http") and judge.model
"""
)

# kind: (folder in the kit, the plugin, its test)
TEMPLATES = {
    "reward": ("rewards", _REWARD, _REWARD_TEST),
    "loss": ("plugins", _LOSS, _LOSS_TEST),
    "eval": ("evals", _EVAL, _EVAL_TEST),
    "judge": ("plugins", _JUDGE, _JUDGE_TEST),
}
