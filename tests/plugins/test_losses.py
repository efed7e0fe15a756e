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
