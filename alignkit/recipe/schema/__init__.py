"""Every key of a recipe. `train` is open here: the installed TRL says what it may hold
(trl_config.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alignkit.types import Normalize

Method = Literal["sft", "grpo", "rloo", "dpo", "expert_iteration", "pipeline"]
METHODS: tuple[str, ...] = get_args(Method)
# those that sample responses and grade them
ROLLOUT_METHODS = ("grpo", "rloo", "expert_iteration")
# A pipeline says these once; its stages neither state nor inherit them.
SHARED_KEYS = ("seed", "track", "callbacks", "launch", "output")
PIPELINE_KEYS = ("name", "description", "method", "stages", *SHARED_KEYS)
TRAINED_METHODS = tuple(method for method in METHODS if method != "pipeline")
USED_BY = {
    "rewards": ROLLOUT_METHODS,
    "generation": ROLLOUT_METHODS,
    "advantage": ("grpo", "rloo"),
    "loss": TRAINED_METHODS,
    "expert_iteration": ("expert_iteration",),
    **dict.fromkeys(
        ("budget", "best"),
        tuple(method for method in TRAINED_METHODS if method != "expert_iteration"),
    ),
    "stages": ("pipeline",),
    **dict.fromkeys(("model", "data", "train", "evals"), TRAINED_METHODS),
}

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
# an empty one would end every completion at its first token
Stop = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A map with fixed keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class PluginSection(Section):
    """A map with some keys of the core's, beside the options of a plugin."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's options as the recipe states them."""
        return dict(self.model_extra or {})


class Build(Section):
    """A small model with random weights and its tokenizer, made on the spot."""

    tokenizer: Literal["bytes", "digits"] = "bytes"
    """`digits`: arithmetic only, one token per sign and tag; `bytes`: any text."""
    hidden_size: Count = 64
    layers: Count = 2
    heads: Count = 4
    intermediate_size: Count = 256
    init_std: Annotated[float, Field(gt=0)] = 0.08
    """Standard deviation of the normal distribution that all matrices are drawn from.
    """
    max_length: Count = 1024
    """Positions the model has, prompt and response together."""


class Model(Section):
    """The model that training starts from: `path` or `build`."""

    path: str | None = None
    """A Hub id, a folder, a run folder, or `stage:NAME` of an earlier stage."""
    build: Build | None = None
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    lora: dict[str, Any] | None = None
    """Fields of PEFT's LoraConfig (`alpha` is lora_alpha)."""
    quantize: dict[str, Any] | None = None
    """Fields of transformers' BitsAndBytesConfig: the frozen weights under `lora` in 4
    or 8 bits (QLoRA).
    """


class Prompt(Section):
    """The prompt template: a name, `{file: PATH}` or `{template: TEXT}`."""

    name: str | None = None
    file: str | None = None
    """A template file, used byte for byte; `{column}` is filled in."""
    template: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class Dataset(PluginSection):
    """A dataset plugin by name; its options stand beside these keys."""

    dataset: str
    split: str | None = None
    path: str | None = None
    """A local file or folder in place of the Hub."""
    limit: Count | None = None
    """Use only the first rows."""


class EvalDataset(Dataset):
    """Changes to the data an eval brings along."""

    dataset: str | None = None  # type: ignore[assignment]


class Data(Section):
    """What is trained on, and how a row becomes a prompt."""

    train: Dataset
    validation: Dataset | None = None
    prompt: Prompt | None = None


class Sampling(Section):
    """How completions are drawn. Stop strings are kept in the text."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    """0: all tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] | None = None
    max_new_tokens: Count | None = None
    stop: list[Stop] | None = None


class Vllm(Section):
    """How vLLM serves rollouts."""

    mode: Literal["colocate", "server"] = "colocate"
    gpu_memory_utilization: Fraction | None = None
    sleep: bool = False
    """Free vLLM's memory during the optimizer step."""
    tensor_parallel: Count = 1
    max_model_len: Count | None = None
    sync_tolerance: Annotated[float, Field(gt=0)] | None = None
    """Nats per token that vLLM's log-probs may differ from the trainer's after a sync;
    by the dtype where unsaid.
    """
    server: str | None = None
    """Base URL of a running server (mode: server)."""


class Generation(Sampling):
    """Rollouts."""

    engine: Literal["auto", "transformers", "vllm"] = "auto"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Fraction = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    max_new_tokens: Count = 1024
    stop: list[Stop] = []
    vllm: Vllm | None = None


class Reward(PluginSection):
    """One reward function."""

    weight: float = 1.0
    on_error: Literal["stop", "zero"] = "stop"
    """What a crash of the reward does to the run."""
    deadline: Annotated[float, Field(gt=0)] | None = None
    """Seconds for one sample; the plugin's own where nothing is said."""


class Loss(PluginSection):
    """The loss plugin, and how its values become one number."""

    name: str
    normalize: Normalize | None = None
    constant: Annotated[float, Field(gt=0)] | None = None
    """The divisor of `normalize: constant`."""


class Advantage(PluginSection):
    """How rewards become advantages."""

    name: str


class Eval(PluginSection):
    """One benchmark: when it runs, on what, and its options."""

    before: bool = False
    after: bool = True
    every: Count | None = None
    """Steps between runs during training."""
    limit: Count | None = None
    split: str | None = None
    samples: Count = 1
    """Completions for each question."""
    prompt: Prompt | None = None
    data: EvalDataset | None = None
    sampling: Sampling | None = None
    judge: str | None = None
    """A judge plugin, `NAME` or `NAME:MODEL`."""


class Best(Section):
    """Which checkpoint is kept as the best."""

    metric: str
    """Such as `eval/math/accuracy`."""
    mode: Literal["max", "min"] = "max"


class ExpertIteration(Section):
    """Sample, keep what is correct, train on it, repeat."""

    iterations: Count = 5
    questions: Count
    """Questions drawn in each iteration."""
    rollouts: Count
    """Responses sampled for each question."""
    epochs: Count = 1
    correct: Literal["all", "single"] = "all"
    """Keep every correct response of a question, or one."""
    hints: bool = False
    """Ask again, with the answer in view, what was never answered rightly (STaR's
    rationalisation).
    """
    train_by_kept: dict[
        Annotated[str, Field(pattern=r"^[1-9]\d*$")], dict[str, Any]
    ] = {}
    """Changes to `train` by how many responses were kept: those of the smallest number
    that is not exceeded.
    """


class Launch(Section):
    """How the training process is started."""

    processes: Count = 1


class Budget(Section):
    """Training ends with the step that reaches it; `train.max_steps` still holds."""

    tokens: Count | None = None
    """Tokens trained on or generated, prompts included: `tokens` in metrics.jsonl."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Wall clock of the training loop, evals during training included."""


class Output(Section):
    """Where run folders go."""

    root: str = "runs"


class RecipeConfig(Section):
    """A whole recipe."""

    name: str
    description: str | None = None
    method: Method
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: Model | None = None
    data: Data | None = None
    rewards: dict[str, Reward] | None = None
    loss: Loss | None = None
    advantage: Advantage | None = None
    generation: Generation | None = None
    train: dict[str, Any] = {}
    """TRL's own field names for the method."""
    evals: dict[str, Eval] = {}
    best: Best | None = None
    expert_iteration: ExpertIteration | None = None
    budget: Budget | None = None
    stages: dict[str, RecipeConfig] | None = None
    callbacks: list[str] = []
    track: list[Literal["wandb", "trackio", "tensorboard"]] = []
    launch: Launch = Launch()
    output: Output = Output()


def section_at(key: Sequence[str]) -> type[BaseModel] | None:
    """The schema of the map at a key; None where names or anything may stand."""
    found: Any = RecipeConfig
    for part in key:
        if (
            isinstance(found, type)
            and issubclass(found, BaseModel)
            and part in found.model_fields
        ):
            annotation = found.model_fields[part].annotation
            arms = [arm for arm in get_args(annotation) if arm is not NoneType]
            found = arms[0] if get_origin(annotation) is UnionType else annotation
        elif get_origin(found) is dict:
            found = get_args(found)[1]
        else:
            return None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None
