"""What plugins return: frozen dataclasses, exported by `alignkit`.

Tensor shapes: B rows (completions) of a microbatch, T completion tokens of its longest
row, N completions of a generation batch (groups are adjacent), G completions per
prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor


Status = Literal["ok", "wrong", "unparsed", "timeout", "error"]
STATUSES: tuple[str, ...] = get_args(Status)
Normalize = Literal["sequence", "constant", "token", "microbatch"]
NORMALIZATIONS: tuple[str, ...] = get_args(Normalize)
Message = Mapping[str, str]  # {"role": "user", "content": "…"}


@dataclass(frozen=True, slots=True)
class Score:
    """One graded completion.

    `status`: `ok` (graded right), `wrong`, `unparsed` (no answer found), `timeout`,
        `error`; left out it is `ok` for a positive reward, else `wrong` (a penalty should
        say `ok` itself). `parts` are logged beside the reward; `stage` and `explanation`
        say what decided; `answer`: a wrong one, the same text for equal ones (maj@k).
    """

    reward: float
    status: Status | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    stage: str = ""
    explanation: str = ""
    answer: str | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward):
            raise ValueError(f"a reward must be a finite number, got {self.reward!r}")
        if self.status is None:
            object.__setattr__(self, "status", "ok" if self.reward > 0 else "wrong")
        elif self.status not in STATUSES:
            raise ValueError(
                f"status {self.status!r} is unknown; known: {', '.join(STATUSES)}"
            )


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward function under a name.

    The function names what it needs, by its positional parameters. Per sample: any of
    `response`, `truth`, `prompt`, `metadata`, `tokens` (how many the response has, None
    where that is not known); it returns a `Score` or a number. Per batch: any of
    `responses`, `truths`, `prompts`, `metadatas`, `tokens`; it returns one per
    response. Either may be `async`. Keyword-only parameters are the options of a
    recipe. `prompt` is the text or the list of messages the model was given.

    `where`: a sync per-sample reward runs in the worker pool (killed after `deadline`
        seconds per sample), batch and async ones in the trainer's process; name `pool`
        or `process` to choose.
    `style`: it says how something is written (a penalty, a format), not whether it is
        right.
    `retired`: options that it once had, and what takes their place.
    `asks`: from the options that it names, the judge that is asked (`find_judge`).
    """

    name: str
    function: Callable[..., Any]
    deadline: float = 5.0
    where: Literal["auto", "pool", "process"] = "auto"
    style: bool = False
    retired: Mapping[str, str] = field(default_factory=dict)
    asks: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True)
class SFTBatch:
    """What a supervised loss sees."""

    logps: Tensor  # (B, T) log-probs of the labels, with gradient
    mask: Tensor  # (B, T) bool, True on the tokens trained on
    entropies: Tensor | None = None  # (B, T), no gradient


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """What a policy-gradient loss sees. Only `logps` carries a gradient."""

    logps: Tensor  # (B, T) log-probs of the completion tokens under the policy
    # (B, T) under the policy that sampled; equals logps.detach() when on-policy
    old_logps: Tensor
    mask: Tensor  # (B, T) bool, True on completion tokens
    advantages: Tensor  # (B,)
    rewards: Tensor  # (B,) raw rewards
    # (B, T) under the reference model, where the recipe has one
    ref_logps: Tensor | None = None
    entropies: Tensor | None = None  # (B, T)


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    """What a preference loss sees: log-probs summed over each response. Policy ones
    carry a gradient.
    """

    chosen_logps: Tensor  # (B,)
    rejected_logps: Tensor  # (B,)
    ref_chosen_logps: Tensor  # (B,)
    ref_rejected_logps: Tensor  # (B,)
    # (B, T) of each token, with gradient, and bool masks: their sums are the lengths
    chosen_token_logps: Tensor | None = None
    chosen_mask: Tensor | None = None
    rejected_token_logps: Tensor | None = None
    rejected_mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss function under a name: `f(batch, *, options) -> loss` or `-> (loss,
    metrics)`.

    The loss is per token (B, T) or per sequence (B,), not yet masked, reduced or
    divided: the trainer does that by the recipe's `normalize`. Metrics are numbers, (B,
    T) or (B,) tensors, averaged over the microbatches, the response tokens or the rows
    of the optimizer step.
    """

    name: str
    function: Callable[..., Any]
    methods: tuple[str, ...]  # of sft, grpo, rloo, dpo
    # () for per-sequence losses
    normalize: tuple[Normalize, ...] = ("sequence", "constant", "token", "microbatch")
    depends_on_microbatch: bool = False  # the gradient depends on how the batch is cut
    # "needed": of a policy loss, which `train.beta: 0` leaves without one; "none": of a
    # preference loss that reads no reference log-probs
    reference: Literal["", "needed", "none"] = ""
    entropy_gradient: bool = False  # entropies carry it, which takes memory
    # fields of TRL's config that make its own loss this one: {"loss_type": "cispo"}
    like: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Advantage:
    """`f(rewards (N,), group_size, *, options) -> advantages (N,)`; groups are
    adjacent.

    `by_reward`: it gets each reward by itself, (N, R), and their weights (R,) behind the
    group size (GDPO). `across_groups`: it looks beyond a group, at the whole batch
    (REINFORCE++). `nonnegative`: it takes no reward below 0 (MaxRL).
    """

    name: str
    function: Callable[..., Any]
    by_reward: bool = False
    across_groups: bool = False
    nonnegative: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of an eval."""

    id: str
    prompt: str | Sequence[Message]
    truth: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    # continuations compared by log-likelihood; empty: the model generates. The score
    # finds [choice, log-prob, greedy or not] of each in metadata["loglikelihoods"]
    choices: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()  # the prompt of each choice, where they differ
    sampling: Mapping[str, Any] = field(default_factory=dict)  # the same in all samples
    # what is scored: the reply behind `</think>`, or the whole response
    reasoning: Literal["strip", "keep"] = "strip"


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """`load(*, split, path, options) -> rows` (mappings).

    Columns by use: `question` and `truth` (rewards, evals), `prompt` and `response`
    (SFT), `prompt`, `chosen` and `rejected` (DPO); others are kept as metadata.
    """

    name: str
    load: Callable[..., Iterable[Mapping[str, Any]]]
    code: bool = False  # its path may hold code, so a recipe's must lie in a kit


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt template: text, or chat messages, with `{column}` placeholders filled by
    replacement.

    Braces in the values are safe. What follows a `{response}` placeholder is the end of
    a training text and is cut from a prompt. `stop` are the stop strings that belong to
    the template.
    """

    name: str
    template: str | Sequence[Message]
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a callback learns of a run."""

    name: str
    folder: Path
    recipe: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """Functions called during a run, by the process that writes its folder; any may be
    left out. A recipe lists callbacks under `callbacks:`.

    `run_finished` gets the status: `done`, `failed`, `interrupted` or `stalled`.
    """

    name: str
    run_started: Callable[[RunInfo], None] | None = None
    step_logged: Callable[[RunInfo, int, Mapping[str, float]], None] | None = None
    eval_finished: Callable[[RunInfo, str, Mapping[str, Any]], None] | None = None
    run_finished: Callable[[RunInfo, str], None] | None = None
