"""The loss and advantage plugins by themselves, and the example of the guide."""

import re
from pathlib import Path

import pytest

from alignkit import kits, plugins

torch = pytest.importorskip("torch")

GUIDE = Path(__file__).parents[2] / "docs" / "losses.md"


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture
def batch():
    from alignkit import PolicyBatch

    generator = torch.Generator().manual_seed(0)
    logps = -torch.rand(3, 4, generator=generator, dtype=torch.float64)
    old = logps + 0.5 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    advantages, rewards = torch.tensor(
        [[1.0, -2.0, 0.5], [1.0, 0.0, 0.5]], dtype=torch.float64
    )
    return PolicyBatch(logps.requires_grad_(), old, mask, advantages, rewards)


@pytest.mark.parametrize(
    "name", ["no_baseline", "reinforce_with_baseline", "grpo_clip", "grpo_no_clip"]
)
def test_a_policy_loss_is_the_assignments_function(registry, batch, name):
    from alignkit.course import compute_policy_gradient_loss

    result = registry.get("loss", name).value.function(batch)
    loss = result[0] if isinstance(result, tuple) else result
    expected, _ = compute_policy_gradient_loss(
        batch.logps,
        name,
        batch.rewards[:, None],
        batch.advantages[:, None],
        batch.old_logps,
        0.2,
    )
    torch.testing.assert_close(loss, expected)


def test_rloo_clips_the_ratio_of_whole_sequences(registry, batch):
    loss, _ = registry.get("loss", "rloo").value.function(batch, cliprange=0.1)
    for row, kept in enumerate((4, 2, 0)):
        ratio = (
            batch.logps[row, :kept].sum() - batch.old_logps[row, :kept].sum()
        ).exp()
        advantage = batch.advantages[row]
        torch.testing.assert_close(
            loss[row],
            -torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage),
        )


def test_leave_one_out_compares_with_the_others_that_were_scored(registry):
    leave_one_out = registry.get("advantage", "leave_one_out").value.function
    rewards = torch.tensor([1.0, 0.0, 0.5, torch.nan, torch.nan, 2.0])
    assert leave_one_out(rewards, 3)[:3].tolist() == pytest.approx([0.75, -0.75, 0.0])
    assert leave_one_out(rewards, 3)[5] == 0


def test_group_scales_by_the_deviation_or_not(registry):
    group = registry.get("advantage", "group").value.function
    rewards = torch.tensor([0.2, 0.5, 0.0, 0.4])
    centred = rewards - rewards.mean()
    torch.testing.assert_close(group(rewards, 4, scale="none"), centred)
    torch.testing.assert_close(
        group(rewards, 4, eps=0.1), centred / (rewards.std() + 0.1)
    )


def test_group_without_a_baseline_still_divides_by_the_deviation(registry):
    group = registry.get("advantage", "group").value.function
    rewards = torch.tensor([0.2, 0.5, 0.0, 0.4])
    found = group(rewards, 4, baseline="none", eps=0.1)
    torch.testing.assert_close(found, rewards / (rewards.std() + 0.1))
    assert torch.equal(group(rewards, 4, baseline="none", scale="none"), rewards)


@pytest.mark.parametrize("high", [None, 0.3])
def test_gspo_clips_the_geometric_mean_of_the_ratios(registry, batch, high):
    loss, metrics = registry.get("loss", "gspo").value.function(
        batch, cliprange=0.1, cliprange_high=high
    )
    gaps = (batch.logps - batch.old_logps).detach()
    for row, kept in enumerate((4, 2, 0)):
        ratio = gaps[row, :kept].sum().div(max(kept, 1)).exp()
        clipped = ratio.clamp(0.9, 1 + (high or 0.1))
        free, held = ratio * batch.advantages[row], clipped * batch.advantages[row]
        assert loss[row].tolist() == pytest.approx([-min(free, held).item()] * 4)
        assert metrics["clip_fraction"][row].tolist() == [bool(held < free)] * 4


def test_cispo_clips_weights_and_no_gradients(registry, batch):
    loss, metrics = registry.get("loss", "cispo").value.function(
        batch, cliprange_high=0.1
    )
    (gradient,) = torch.autograd.grad(loss.sum(), batch.logps)
    ratio = (batch.logps - batch.old_logps).exp().detach()
    weight = ratio.clamp(max=1.1)
    assert (ratio > 1.1).any() and torch.equal(metrics["clip_fraction"], ratio > 1.1)
    torch.testing.assert_close(gradient, -weight * batch.advantages[:, None])


def test_a_rare_right_answer_weighs_more_with_maxrl(registry):
    maxrl = registry.get("advantage", "maxrl").value.function
    rewards = torch.tensor([1.0, 0, 0, 0, 1.0, 1, 0, 0, 0, 0, 0, 0])
    expected = [3.0, -1, -1, -1, 1, 1, -1, -1, 0, 0, 0, 0]
    assert maxrl(rewards, 4).tolist() == pytest.approx(expected, abs=1e-4)


def test_reinforce_plus_plus_divides_by_the_deviation_of_the_batch(registry):
    function = registry.get("advantage", "reinforce_plus_plus").value.function
    rewards = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])
    torch.testing.assert_close(
        function(rewards, 4), (rewards - 0.5) / (rewards.std() + 1e-6)
    )
    gaps = rewards - torch.tensor([0.25] * 4 + [0.75] * 4)
    torch.testing.assert_close(
        function(rewards, 4, baseline="group"), gaps / (gaps.std() + 1e-6)
    )


def test_gdpo_normalises_each_reward_before_it_adds_them_up(registry):
    """A reward of small numbers counts by its weight, and so does what only one reward
    could score.
    """
    gdpo = registry.get("advantage", "gdpo").value.function
    nan = torch.nan
    columns = torch.tensor([[1.0, 0, 1, 0, nan, 1], [0, 0.01, 0, 0.02, 0.01, nan]])
    rewards, weights = columns.T, torch.tensor([2.0, 0.5])

    def normalised(values):
        known = values[~values.isnan()]
        return (values - known.mean()) / (known.std() + 1e-6)

    parts = [
        torch.cat([normalised(column[:3]), normalised(column[3:])]).nan_to_num(0)
        for column in columns
    ]
    total = 2.0 * parts[0] + 0.5 * parts[1]
    torch.testing.assert_close(gdpo(rewards, 3, weights), normalised(total))


@pytest.mark.slow
def test_the_guides_example_is_a_loss_that_passes_the_check(tmp_path):
    from alignkit.conformance import laboratory as tiny
    from alignkit.conformance.losses import check_loss

    [source] = re.findall(
        r"^```python\n(.*?)^```",
        GUIDE.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "truncated_importance.py").write_text(source)
    loss = (
        plugins.load([kits.at(tmp_path, "the test")])
        .get("loss", "truncated_importance")
        .value
    )
    with tiny.Laboratory() as laboratory:
        results = check_loss(loss, laboratory)
    assert [result for result in results if result.ok is False] == []
