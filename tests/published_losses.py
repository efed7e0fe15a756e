"""Published losses by their formulas, each with its paper, and planted faults in them,
each with the property that finds it. The table of docs/losses.md is made of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from alignkit import Loss

POLICY = ("grpo",)


def column(batch: Any) -> Any:
    return batch.advantages.unsqueeze(1)


def ratio(batch: Any) -> Any:
    return (batch.logps - batch.old_logps).exp()


def clipped(batch: Any, low: float, high: float) -> Any:
    r = ratio(batch)
    return -torch.min(r * column(batch), r.clamp(1 - low, 1 + high) * column(batch))


def mean_gap(batch: Any) -> Any:
    gaps = (batch.logps - batch.old_logps).masked_fill(~batch.mask, 0)
    return gaps.sum(1) / batch.mask.sum(1).clamp(min=1)


def k3(batch: Any) -> Any:
    gap = batch.ref_logps - batch.logps
    return gap.exp() - gap - 1


# -- policy losses ---------------------------------------------------------------------


def gspo(batch, *, epsilon: float = 3e-4, epsilon_high: float = 4e-4):
    """Zheng et al., 2025, arXiv:2507.18071, equation 5."""
    r, a = mean_gap(batch).exp(), batch.advantages
    return -torch.min(r * a, r.clamp(1 - epsilon, 1 + epsilon_high) * a)


def cispo(batch, *, epsilon_high: float = 0.2):
    """MiniMax-M1, arXiv:2506.13585, equation 4: weights are clipped, not gradients."""
    weight = ratio(batch).clamp(max=1 + epsilon_high).detach()
    return -weight * column(batch) * batch.logps


def sapo(batch, *, positive: float = 1.0, negative: float = 1.05):
    """Gao et al., 2025, arXiv:2511.20347: a soft gate in place of the clip."""
    temperature = torch.where(column(batch) > 0, positive, negative)
    gate = torch.sigmoid(temperature * (ratio(batch) - 1)) * 4 / temperature
    return -gate * column(batch)


def dapo(batch, *, epsilon: float = 0.2, epsilon_high: float = 0.28):
    """Yu et al., 2025, arXiv:2503.14476, equation 8: clip-higher."""
    return clipped(batch, epsilon, epsilon_high)


def dr_grpo(batch, *, epsilon: float = 0.2):
    """Liu et al., 2025, arXiv:2503.20783: divided by a constant, which is `normalize`."""
    return clipped(batch, epsilon, epsilon)


def two_sided(batch, *, epsilon: float = 0.2, delta: float = 4.0):
    """INTELLECT-2, arXiv:2505.07291: the ratio of bad tokens is bounded too."""
    r = ratio(batch)
    bounded = r.clamp(max=delta) * column(batch)
    return -torch.min(bounded, r.clamp(1 - epsilon, 1 + epsilon) * column(batch))


def grpo_with_kl(batch, *, epsilon: float = 0.2, beta: float = 0.04):
    """Shao et al., 2024, arXiv:2402.03300, equation 3."""
    return clipped(batch, epsilon, epsilon) + beta * k3(batch)


def grpo_with_k2(batch, *, beta: float = 0.04):
    """The squared log-ratio (Schulman, 2020), whose gradient is the KL's."""
    gap = batch.logps - batch.ref_logps
    return -ratio(batch) * column(batch) + beta * gap**2 / 2


def topr(batch, *, bound: float = 1.0):
    """Le Roux et al., 2025, arXiv:2503.14286: good responses as they are, bad ones by a
    truncated ratio.
    """
    gaps = (batch.logps - batch.old_logps).masked_fill(~batch.mask, 0).sum(1)
    weight = gaps.exp().clamp(max=bound).detach()
    weight = torch.where(batch.advantages > 0, torch.ones_like(weight), weight)
    return -weight.unsqueeze(1) * column(batch) * batch.logps


def dual_clip(batch, *, epsilon: float = 0.2, delta: float = 3.0):
    """Ye et al., 2020, arXiv:1912.09729: a floor under bad tokens."""
    values = clipped(batch, epsilon, epsilon)
    floored = torch.min(values, -delta * column(batch))
    return torch.where(column(batch) < 0, floored, values)


def unbiased_kl(batch, *, beta: float = 0.04):
    """DeepSeek-V3.2, arXiv:2512.02556: k3 by the ratio to the policy that sampled."""
    return ratio(batch) * (beta * k3(batch) - column(batch))


def unlikely_held(batch, *, epsilon: float = 0.2, alpha: float = 0.3):
    """Yang et al., 2025, arXiv:2505.12929: unlikely tokens weigh less."""
    weight = alpha * batch.logps.detach().exp() + 1 - alpha
    return weight * clipped(batch, epsilon, epsilon)


# -- preference losses -----------------------------------------------------------------


def ratios(batch: Any) -> tuple[Any, Any]:
    return (
        batch.chosen_logps - batch.ref_chosen_logps,
        batch.rejected_logps - batch.ref_rejected_logps,
    )


def margin(batch: Any) -> Any:
    chosen, rejected = ratios(batch)
    return chosen - rejected


def per_token(batch: Any) -> tuple[Any, Any]:
    return (
        batch.chosen_logps / batch.chosen_mask.sum(1).clamp(min=1),
        batch.rejected_logps / batch.rejected_mask.sum(1).clamp(min=1),
    )


def ipo(batch, *, beta: float = 0.1):
    """Azar et al., 2023, arXiv:2310.12036, equation 17, over mean log-ratios."""
    chosen, rejected = ratios(batch)
    chosen = chosen / batch.chosen_mask.sum(1).clamp(min=1)
    rejected = rejected / batch.rejected_mask.sum(1).clamp(min=1)
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def hinge(batch, *, beta: float = 0.1):
    """SLiC, Zhao et al., 2023, arXiv:2305.10425, on the log-ratios."""
    return (1 - beta * margin(batch)).relu()


def apo_zero(batch, *, beta: float = 0.1):
    """D'Oosterlinck et al., 2024, arXiv:2408.06266, equation 4."""
    chosen, rejected = ratios(batch)
    return 1 - (beta * chosen).sigmoid() + (beta * rejected).sigmoid()


def robust(batch, *, beta: float = 0.1, flipped: float = 0.1):
    """Chowdhury et al., 2024, arXiv:2403.00409: labels are wrong now and then."""
    m = beta * margin(batch)
    right, wrong = -F.logsigmoid(m), -F.logsigmoid(-m)
    return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)


def dpop(batch, *, beta: float = 0.1, weight: float = 5.0):
    """Pal et al., 2024, arXiv:2402.13228: the chosen response may not lose."""
    lost = (batch.ref_chosen_logps - batch.chosen_logps).relu()
    return -F.logsigmoid(beta * (margin(batch) - weight * lost))


def simpo(batch, *, beta: float = 2.0, gamma: float = 1.0):
    """Meng et al., 2024, arXiv:2405.14734, equation 6: no reference."""
    chosen, rejected = per_token(batch)
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def orpo(batch, *, weight: float = 0.1):
    """Hong et al., 2024, arXiv:2403.07691: odds beside the likelihood."""
    chosen, rejected = per_token(batch)
    near = -1e-6  # of a response without tokens the odds are infinite
    odds = (chosen - rejected) - (
        torch.log1p(-chosen.clamp(max=near).exp())
        - torch.log1p(-rejected.clamp(max=near).exp())
    )
    return -chosen - weight * F.logsigmoid(odds)


def rpo(batch, *, beta: float = 0.1, alpha: float = 1.0):
    """Pang et al., 2024, arXiv:2404.19733: DPO, and the chosen response learnt."""
    return -F.logsigmoid(beta * margin(batch)) - alpha * per_token(batch)[0]


def nca(batch, *, beta: float = 0.1):
    """Chen et al., 2024, arXiv:2402.05369: each response against noise."""
    chosen, rejected = (beta * gap for gap in ratios(batch))
    noise = F.logsigmoid(-chosen) + F.logsigmoid(-rejected)
    return -F.logsigmoid(chosen) - 0.5 * noise


def sppo(batch, *, beta: float = 0.1):
    """Wu et al., 2024, arXiv:2405.00675, with sure preferences."""
    chosen, rejected = ratios(batch)
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


def apo_down(batch, *, beta: float = 0.1):
    """D'Oosterlinck et al., 2024, arXiv:2408.06266, beside APO-zero."""
    chosen, _ = ratios(batch)
    return (beta * chosen).sigmoid() + 1 - (beta * margin(batch)).sigmoid()


# -- supervised losses -----------------------------------------------------------------


def dft(batch):
    """Wu et al., 2025, arXiv:2508.05629: weighed by the probability, detached."""
    return -batch.logps.detach().exp() * batch.logps


def focal(batch, *, gamma: float = 2.0):
    """Lin et al., 2017, arXiv:1708.02002: what is known weighs less."""
    unsure = -torch.expm1(batch.logps.clamp(max=-1e-6))
    return -(unsure**gamma) * batch.logps


def poly(batch, *, epsilon: float = 1.0):
    """Leng et al., 2022, arXiv:2204.12511, Poly-1."""
    return -batch.logps + epsilon * (1 - batch.logps.exp())


def label_smoothed(batch, *, beta: float = 0.1, smoothing: float = 0.1):
    """Mitchell, 2023: conservative DPO; refuses what is no share."""
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing is {smoothing}; expected 0 to 0.5")
    m = beta * margin(batch)
    return -(1 - smoothing) * F.logsigmoid(m) - smoothing * F.logsigmoid(-m)


PUBLISHED = [
    Loss("gspo", gspo, POLICY, normalize=()),
    Loss("cispo", cispo, POLICY),
    Loss("sapo", sapo, POLICY),
    Loss("dapo", dapo, POLICY),
    Loss("dr_grpo", dr_grpo, POLICY, normalize=("constant",)),
    Loss("two_sided", two_sided, POLICY),
    Loss("grpo_with_kl", grpo_with_kl, POLICY, reference="needed"),
    Loss("grpo_with_k2", grpo_with_k2, POLICY, reference="needed"),
    Loss("topr", topr, POLICY),
    Loss("dual_clip", dual_clip, POLICY),
    Loss("unbiased_kl", unbiased_kl, POLICY, reference="needed"),
    Loss("unlikely_held", unlikely_held, POLICY),
    Loss("ipo", ipo, ("dpo",), normalize=()),
    Loss("hinge", hinge, ("dpo",), normalize=()),
    Loss("apo_zero", apo_zero, ("dpo",), normalize=()),
    Loss("robust", robust, ("dpo",), normalize=()),
    Loss("dpop", dpop, ("dpo",), normalize=()),
    Loss("simpo", simpo, ("dpo",), normalize=(), reference="none"),
    Loss("orpo", orpo, ("dpo",), normalize=(), reference="none"),
    Loss("rpo", rpo, ("dpo",), normalize=()),
    Loss("label_smoothed", label_smoothed, ("dpo",), normalize=()),
    Loss("nca", nca, ("dpo",), normalize=()),
    Loss("sppo", sppo, ("dpo",), normalize=()),
    Loss("apo_down", apo_down, ("dpo",), normalize=()),
    Loss("focal", focal, ("sft",)),
    Loss("poly", poly, ("sft",)),
    Loss("dft", dft, ("sft",), like={"loss_type": "dft"}),
]


# -- planted faults --------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A wrong loss, and the check that says so."""

    name: str
    loss: Loss
    check: str


def max_for_min(batch, *, cliprange: float = 0.2):
    r = ratio(batch)
    near = r.clamp(1 - cliprange, 1 + cliprange)
    return -torch.max(r * column(batch), near * column(batch))


def inverted(batch, *, cliprange: float = 0.2):
    r = (batch.old_logps - batch.logps).exp()
    near = r.clamp(1 - cliprange, 1 + cliprange)
    return -torch.min(r * column(batch), near * column(batch))


def good_only(batch, *, cliprange: float = 0.2):
    r = ratio(batch)
    near = torch.min(r, r.new_tensor(1 + cliprange))
    return -torch.where(column(batch) > 0, near, r) * column(batch)


def log_clip(batch, *, cliprange: float = 0.2):
    gap = batch.logps - batch.old_logps
    near = gap.clamp(-cliprange, cliprange).exp()
    return -torch.min(gap.exp() * column(batch), near * column(batch))


def ten_times(batch, *, cliprange: float = 0.05):
    return clipped(batch, 10 * cliprange, 10 * cliprange)


def old_ignored(batch, *, cliprange: float = 0.2):
    r = (batch.logps - batch.logps.detach()).exp()
    near = r.clamp(1 - cliprange, 1 + cliprange)
    return -torch.min(r * column(batch), near * column(batch))


def reference_for_old(batch, *, cliprange: float = 0.2):
    r = (batch.logps - batch.ref_logps).exp()
    near = r.clamp(1 - cliprange, 1 + cliprange)
    return -torch.min(r * column(batch), near * column(batch))


def kl_sign(batch, *, beta: float = 0.04):
    return clipped(batch, 0.2, 0.2) - beta * k3(batch)


def kl_exchanged(batch, *, beta: float = 0.04):
    gap = batch.logps - batch.ref_logps
    return -ratio(batch) * column(batch) + beta * (gap.exp() - gap - 1)


def idle_option(batch, *, epsilon: float = 0.2, beta: float = 0.1):
    return clipped(batch, epsilon, epsilon)


def length_twice(batch, *, epsilon: float = 0.2):
    return clipped(batch, epsilon, epsilon) / batch.mask.sum(1, keepdim=True)


def last_token(batch, *, epsilon: float = 0.2):
    places = torch.arange(batch.mask.shape[1])[None]
    last = places == batch.mask.sum(1, keepdim=True) - 1
    return clipped(batch, epsilon, epsilon) * last


def confident_dropped(batch, *, epsilon: float = 0.2):
    return clipped(batch, epsilon, epsilon) * (batch.logps.detach() < -0.01)


def kl_by_advantage(batch, *, beta: float = 0.04):
    return ratio(batch) * column(batch) * (beta * k3(batch) - 1)


def kl_by_length(batch, *, beta: float = 0.04):
    return clipped(batch, 0.2, 0.2) + beta * k3(batch) / batch.mask.sum(1, keepdim=True)


def kl_without_gradient(batch, *, beta: float = 0.04):
    return clipped(batch, 0.2, 0.2) + beta * k3(batch).detach()


def sides_exchanged(batch, *, epsilon_low: float = 0.2, epsilon_high: float = 0.28):
    return clipped(batch, epsilon_high, epsilon_low)


def weights_exchanged(batch, *, low: float = 0.5, high: float = 0.8):
    weight = ratio(batch).clamp(1 - high, 1 + low).detach()
    return -weight * column(batch) * batch.logps


def by_probability(batch, *, epsilon: float = 0.2):
    return batch.logps.detach().exp() * clipped(batch, epsilon, epsilon)


def later_more(batch, *, epsilon: float = 0.2):
    places = torch.arange(batch.logps.shape[1]).to(batch.logps)
    return (1 + places) * clipped(batch, epsilon, epsilon)


def probabilities(batch):
    return (batch.old_logps.exp() - batch.logps.exp()) * column(batch)


def references_exchanged(batch, *, beta: float = 0.1):
    m = batch.chosen_logps - batch.rejected_logps
    m = m - (batch.ref_rejected_logps - batch.ref_chosen_logps)
    return -F.logsigmoid(beta * m)


def sign_missing(batch, *, beta: float = 0.1):
    return F.logsigmoid(beta * margin(batch))


def reference_missing(batch, *, beta: float = 0.1):
    return -F.logsigmoid(beta * (batch.chosen_logps - batch.rejected_logps))


def one_reference_missing(batch, *, beta: float = 0.1):
    chosen, _ = ratios(batch)
    return -F.logsigmoid(beta * (chosen - batch.rejected_logps))


def beta_ignored(batch, *, beta: float = 0.1):
    return -F.logsigmoid(0.1 * margin(batch))


def beta_on_chosen(batch, *, beta: float = 0.1):
    chosen, rejected = ratios(batch)
    return -F.logsigmoid(beta * chosen - rejected)


def beta_on_rejected(batch, *, beta: float = 0.1):
    chosen, rejected = ratios(batch)
    return -F.logsigmoid(chosen - beta * rejected)


def first_token(batch, *, beta: float = 2.0):
    chosen, rejected = batch.chosen_token_logps, batch.rejected_token_logps
    return -F.logsigmoid(beta * (chosen[:, 0] - rejected[:, 0]))


def rejected_learnt(batch, *, beta: float = 0.1, alpha: float = 1e-3):
    return -F.logsigmoid(beta * margin(batch)) - alpha * per_token(batch)[1]


def sure_dropped(batch):
    return -batch.logps * (batch.logps < -0.1)


def minus_p(batch):
    return -batch.logps.exp()


def squared(batch):
    return batch.logps**2


def clamped(batch):
    return -batch.logps.clamp(min=-2.0)


def rare_unlearnt(batch):
    return torch.where(batch.logps > -2.0, -batch.logps, batch.logps)


def idle_gamma(batch, *, gamma: float = 2.0):
    return -batch.logps


def by_entropy(batch):
    return -batch.logps * batch.entropies


def by_length(batch):
    return -batch.logps / batch.mask.sum(1, keepdim=True).clamp(min=1)


def focal_attached(batch):
    return -batch.logps.exp() * batch.logps


def focal_power(batch):
    return -(batch.logps.detach().exp() ** 2) * batch.logps


def policy(name: str, function: Callable[..., Any], check: str, **more: Any) -> Fault:
    return Fault(name, Loss("planted", function, POLICY, **more), check)


def pairs(name: str, function: Callable[..., Any], check: str, **more: Any) -> Fault:
    return Fault(name, Loss("planted", function, ("dpo",), normalize=(), **more), check)


def supervised(name: str, function: Callable[..., Any], check: str) -> Fault:
    return Fault(name, Loss("planted", function, ("sft",)), check)


def twin(name: str, function: Callable[..., Any]) -> Fault:
    like = {"loss_type": "dft"}
    return Fault(name, Loss("planted", function, ("sft",), like=like), "twin")


NEEDED: dict[str, Any] = {"reference": "needed"}
FAULTS = [
    policy("max for min", max_for_min, "recovery"),
    policy("ratio inverted", inverted, "off-policy direction"),
    policy("no clip for negative advantages", good_only, "both sides clipped"),
    policy("clip on the log-ratio", log_clip, "clip range"),
    policy("clip range ten times too wide", ten_times, "clip range"),
    policy("old_logps ignored", old_ignored, "options"),
    policy(
        "reference in place of old", reference_for_old, "old and reference", **NEEDED
    ),
    policy("KL sign wrong", kl_sign, "divergence", **NEEDED),
    policy("KL arguments exchanged", kl_exchanged, "divergence", **NEEDED),
    policy("an option that changes nothing", idle_option, "options"),
    policy("length counted twice", length_twice, "length once"),
    policy("advantage on the last token only", last_token, "every token"),
    policy("tokens dropped by confidence", confident_dropped, "every token"),
    policy("fails without a reference", kl_sign, "old and reference"),
    policy("KL times the advantage", kl_by_advantage, "divergence", **NEEDED),
    policy("KL divided by the length", kl_by_length, "length once", **NEEDED),
    policy("KL without gradient", kl_without_gradient, "divergence", **NEEDED),
    policy("low and high clip exchanged", sides_exchanged, "sides of the clip"),
    policy("weights' bounds exchanged", weights_exchanged, "sides of the clip"),
    policy("tokens weighed by their probability", by_probability, "every token"),
    policy("later tokens weigh more", later_more, "every token"),
    policy("exp(logp) for logp", probabilities, "every token"),
    pairs("references exchanged", references_exchanged, "common shift"),
    pairs("sign missing", sign_missing, "off-policy direction"),
    pairs("reference missing", reference_missing, "references"),
    pairs("one reference missing", one_reference_missing, "references"),
    pairs("beta ignored", beta_ignored, "options"),
    pairs("beta on the chosen side only", beta_on_chosen, "beta on both"),
    pairs("beta on the rejected side only", beta_on_rejected, "beta on both"),
    pairs("the first token only", first_token, "every token", reference="none"),
    pairs("the rejected response learnt", rejected_learnt, "common shift"),
    supervised("sure tokens dropped", sure_dropped, "every token"),
    supervised("-p for -log p", minus_p, "every token"),
    supervised("log p squared", squared, "every token"),
    supervised("log p clamped", clamped, "every token"),
    supervised("rare tokens unlearnt", rare_unlearnt, "every token"),
    supervised("an SFT option that changes nothing", idle_gamma, "options"),
    supervised("tokens weighed by their entropy", by_entropy, "every token"),
    supervised("SFT length counted twice", by_length, "length once"),
    twin("undetached focal weight", focal_attached),
    twin("wrong power", focal_power),
]
