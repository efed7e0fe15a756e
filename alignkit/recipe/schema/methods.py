"""One class per method: what a recipe of it may state. `method` tells them apart.

`train` is open here: the installed TRL says what it may hold (`alignkit.recipe.trl`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from alignkit.recipe.schema.generation import Generation, OwnGeneration
from alignkit.recipe.schema.key import Key, Section
from alignkit.recipe.schema.sections import (
    Advantage,
    Best,
    Budget,
    Data,
    Eval,
    Iterations,
    Launch,
    Loss,
    Model,
    Output,
    Reward,
    TrainData,
)


class Named(Section):
    """What every recipe has."""

    # Fields of TRL's config that nothing would read, with the reason.
    unread: ClassVar[dict[str, str]] = {}

    name: Annotated[str, Key(owns=("run_name",), identity=False, trains=False)]
    description: Annotated[str | None, Key(identity=False, trains=False)] = None
    method: Annotated[str, Key(observed=True)]
    seed: Annotated[int, Field(ge=0, lt=2**32), Key(trl="seed", shared=True)] = 0


class Started(Section):
    """How a run is started, watched and kept."""

    callbacks: Annotated[
        list[str], Key(plugin="callback", shared=True, identity=False, trains=False)
    ] = []
    track: Annotated[
        list[Literal["wandb", "trackio", "tensorboard"]],
        Key(owns=("report_to",), shared=True, identity=False, trains=False),
    ] = []
    launch: Annotated[Launch, Key(shared=True)] = Launch()
    output: Annotated[Output, Key(shared=True, identity=False, trains=False)] = Output()


class Trained(Started, Named):
    """A recipe that trains one model."""

    unread: ClassVar[dict[str, str]] = {
        "resume_from_checkpoint": "align resumes a run by itself",
        "hub_token": "a secret never stands in a recipe; set the variable HF_TOKEN",
        "trust_remote_code": "it has no use: code of a model is never run",
    }

    model: Annotated[Model, Key(owns=("model_init_kwargs",))]
    data: TrainData
    loss: Annotated[Loss | None, Key(owns=("loss_type",))] = None
    train: dict[str, Any] = {}
    """TRL's own field names for the method."""
    evals: Annotated[dict[str, Eval], Key(plugin="eval", trains=False)] = {}
    waive: Annotated[dict[str, str], Key(shared=True, trains=False)] = {}
    """Proofs that this run goes without, each with the reason, such as `rows_alone: its
    experts depend on the batch`.
    """


class Stepped(Trained):
    """A recipe whose training is one loop of optimizer steps."""

    data: Data
    best: Annotated[Best | None, Key(trains=False)] = None
    budget: Annotated[Budget | None, Key(trains=False)] = None


class Sampled(Trained):
    """A recipe that samples responses and grades them."""

    rewards: Annotated[dict[str, Reward], Field(min_length=1), Key(plugin="reward")]
    generation: OwnGeneration = OwnGeneration()


# Rows are rendered, tokenised and cut before TRL's trainer is made, so what it would do
# to them comes too late.
_ROWS = {
    "truncation_mode": (
        "it has no use: a row longer than train.max_length is cut at its end"
    ),
    "dataset_text_field": "use data.prompt; the dataset's `columns` name what it reads",
    "dataset_kwargs": "it has no use: rows are prepared before TRL sees them",
    "dataset_num_proc": "it has no use: rows are prepared before TRL sees them",
    "assistant_only_loss": (
        "use train.completion_only_loss: true (the default) trains on the response only"
    ),
    "chat_template_path": (
        "it has no use: rows are rendered with the template of the model's own"
        " tokenizer"
    ),
    "eos_token": (
        "it has no use: rows end with the EOS token of the model's own tokenizer"
    ),
}


class SFT(Stepped):
    """Supervised fine-tuning."""

    unread: ClassVar[dict[str, str]] = {**Trained.unread, **_ROWS}
    method: Annotated[Literal["sft"], Key(observed=True)]


class DPO(Stepped):
    """Direct preference optimisation."""

    unread: ClassVar[dict[str, str]] = {
        **Trained.unread,
        "padding_free": "it has no use: TRL has switched it off for DPO",
    }
    method: Annotated[Literal["dpo"], Key(observed=True)]


class Policy(Stepped, Sampled):
    """Reinforcement learning on rollouts."""

    generation: Generation = Generation()
    advantage: Advantage | None = None


class GRPO(Policy):
    """Group-relative policy optimisation."""

    method: Annotated[Literal["grpo"], Key(observed=True)]


class RLOO(Policy):
    """REINFORCE with a leave-one-out baseline."""

    method: Annotated[Literal["rloo"], Key(observed=True)]


class ExpertIteration(Sampled):
    """Supervised fine-tuning on what was sampled and found correct."""

    unread: ClassVar[dict[str, str]] = SFT.unread
    method: Annotated[Literal["expert_iteration"], Key(observed=True)]
    expert_iteration: Iterations


Stage = SFT | DPO | GRPO | RLOO | ExpertIteration


class Pipeline(Started, Named):
    """Recipes one after another."""

    method: Annotated[Literal["pipeline"], Key(observed=True)]
    stages: Annotated[dict[str, Stage], Field(min_length=1)]


Config = Stage | Pipeline
METHODS: dict[str, type[Stage] | type[Pipeline]] = {
    "sft": SFT,
    "grpo": GRPO,
    "rloo": RLOO,
    "dpo": DPO,
    "expert_iteration": ExpertIteration,
    "pipeline": Pipeline,
}
