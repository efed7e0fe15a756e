"""`check` passes what is right and finds every planted fault, in plugins and in the
trainers themselves.
"""

import dataclasses

import pytest

from alignkit import Advantage, Loss, kits, plugins

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def laboratory():
    from alignkit.conformance import laboratory as tiny

    with tiny.Laboratory() as made:
        yield made


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


def failed(results):
    return {result.check for result in results if result.ok is False}


def check_loss(loss, laboratory):
    from alignkit.conformance.losses import check_loss

    return check_loss(loss, laboratory)


def right(batch):
    return -batch.advantages.unsqueeze(1) * batch.logps


def over_the_microbatchs_tokens(batch):
    return right(batch) / batch.mask.sum()


def shifted_mask(batch):
    return right(batch) * batch.mask.roll(1, dims=1)


def attached_advantages(batch):
    penalised = batch.advantages.unsqueeze(1) - 0.1 * (batch.logps - batch.ref_logps)
    return -penalised * batch.logps


def counted_padding(batch):
    return right(batch) / batch.mask.shape[1]


def leaking_padding(batch):
    return right(batch) - batch.logps.mean(dim=1, keepdim=True)


def not_finite_far_down(batch):
    return (
        right(batch)
        * batch.logps.detach().exp().log().clamp(min=-1e30).exp().reciprocal()
    )


def shifted_advantages(batch):
    return -batch.advantages.roll(1).unsqueeze(1) * batch.logps


def mean_over_the_microbatch(batch):
    return right(batch) / len(batch.mask)


def double_precision(batch):
    return right(batch).double()


def grpo(function, normalize="token"):
    return Loss("planted", function, ("grpo",), normalize=(normalize,))


def test_a_right_loss_passes(laboratory):
    results = check_loss(grpo(right), laboratory)
    assert not failed(results)
    assert {"grpo token: definition", "grpo token: cuts", "padding", "finite"} <= {
        r.check for r in results
    }


@pytest.mark.parametrize(
    ("function", "check"),
    [
        (over_the_microbatchs_tokens, "grpo constant: cuts"),
        (shifted_mask, "grpo constant: definition"),
        (attached_advantages, "advantages detached"),
        (counted_padding, "grpo constant: cuts"),
        (leaking_padding, "padding"),
        (not_finite_far_down, "finite"),
        (shifted_advantages, "grpo constant: definition"),
        (mean_over_the_microbatch, "grpo constant: definition"),
        (double_precision, "dtype"),
        (lambda batch: right(batch), "picklable"),
    ],
)
def test_a_planted_fault_in_a_loss_is_found(laboratory, function, check):
    assert check in failed(check_loss(grpo(function, "constant"), laboratory))


def test_a_loss_that_declares_its_dependence_is_reported_not_failed(laboratory):
    loss = dataclasses.replace(
        grpo(over_the_microbatchs_tokens), depends_on_microbatch=True
    )
    results = check_loss(loss, laboratory)
    notes = [result.check for result in results if result.ok is None]
    assert notes == ["old and reference", "cuts"] and not failed(results)


def wrong_sign(batch):
    return -right(batch)


def detached_ratio(batch):
    ratio = (batch.logps - batch.old_logps).exp()
    return -ratio.detach() * batch.advantages.unsqueeze(1) + 0 * batch.logps


def scaled_in_place(batch):
    batch.advantages.mul_(0.5)
    return right(batch)


def unlikelihood(batch):
    return batch.logps


def swapped_sides(batch):
    return batch.chosen_logps - batch.rejected_logps


@pytest.mark.parametrize(
    ("function", "method", "check"),
    [
        (wrong_sign, "grpo", "direction"),
        (detached_ratio, "grpo", "direction"),
        (scaled_in_place, "grpo", "batch unchanged"),
        (unlikelihood, "sft", "direction"),
        (swapped_sides, "dpo", "direction"),
    ],
)
def test_a_loss_that_no_cut_of_the_batch_betrays_is_found(function, method, check):
    """These agree with themselves however the batch is cut, so only what a loss is for
    finds them.
    """
    normalize = () if method == "dpo" else ("sequence",)
    loss = Loss(
        "planted", function, (method,), normalize=normalize, depends_on_microbatch=True
    )
    assert check in failed(check_loss(loss, None))


def fault_in_the_core(name, monkeypatch):
    from alignkit.train import policy
    from alignkit.train.objective import Objective, Step

    if name == "divided by the microbatch's tokens":

        def reduce(self, values, mask, step):
            return values.masked_fill(~mask, 0).sum() / mask.sum()

        monkeypatch.setattr(Objective, "reduce", reduce)
    elif name == "padding counted":

        def reduce(self, values, mask, step):
            return values.sum() / mask.numel() * len(mask) / step.sequences

        monkeypatch.setattr(Objective, "reduce", reduce)
    elif name == "accumulation ignored":

        def measure(self, rows, mask):
            self._step_size = None  # so that every microbatch is measured alone
            return Step(mask.sum(), torch.tensor(float(rows)), 1)

        monkeypatch.setattr(policy._Policy, "_measure", measure)
        monkeypatch.setattr(
            policy._Policy,
            "_step_size",
            property(lambda self: None, lambda self, value: None),
            False,
        )
    else:
        shifted = policy.own_tokens
        monkeypatch.setattr(
            policy, "own_tokens", lambda inputs: shifted(inputs).roll(1, dims=1)
        )


@pytest.mark.parametrize(
    "fault",
    [
        "divided by the microbatch's tokens",
        "padding counted",
        "accumulation ignored",
        "mask shifted by one",
    ],
)
def test_a_planted_fault_in_the_trainers_is_found(laboratory, monkeypatch, fault):
    fault_in_the_core(fault, monkeypatch)
    found = failed(check_loss(grpo(right), laboratory))
    assert "grpo token: cuts" in found, found


def biased(rewards, group_size):
    groups = rewards.view(-1, group_size)
    centred = groups - groups.nanmean(1, keepdim=True)
    return (centred / (groups.std(1, keepdim=True, unbiased=False) + 1e-6)).view(-1)


def over_the_batch(rewards, group_size):
    return rewards - rewards.nanmean()


def by_place(rewards, group_size):
    return (rewards.view(-1, group_size) - rewards.view(-1, group_size)[:, :1]).view(-1)


def wrong_way(rewards, group_size):
    groups = rewards.view(-1, group_size)
    return (groups.nanmean(1, keepdim=True) - groups).nan_to_num(0).view(-1)


def nothing(rewards, group_size):
    return torch.zeros_like(rewards)


@pytest.mark.parametrize(
    ("function", "check"),
    [
        (biased, "unbiased std"),
        (over_the_batch, "groups apart"),
        (by_place, "order"),
        (wrong_way, "direction"),
        (nothing, "direction"),
    ],
)
def test_a_planted_fault_in_an_advantage_is_found(function, check):
    from alignkit.conformance.advantages import check_advantage

    assert check in failed(check_advantage(Advantage("planted", function)))


def test_the_built_in_advantages_pass(registry):
    from alignkit.conformance.advantages import check_advantage

    for plugin in registry.all("advantage"):
        assert not failed(check_advantage(plugin.value)), plugin.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "no_baseline",
        "reinforce_with_baseline",
        "grpo_clip",
        "grpo_no_clip",
        "rloo",
        "sft",
        "dpo",
    ],
)
def test_the_built_in_losses_pass(registry, laboratory, name):
    results = check_loss(registry.get("loss", name).value, laboratory)
    assert not failed(results), [(r.check, r.detail) for r in results if r.ok is False]
