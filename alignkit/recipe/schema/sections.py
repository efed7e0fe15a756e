"""The maps of a recipe, whatever its method."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from alignkit.recipe.schema.generation import SamplingChanges
from alignkit.recipe.schema.key import Count, Key, PluginSection, Positive, Section
from alignkit.run.deadlines import Phase
from alignkit.types import Normalize


class Build(Section):
    """A small model with random weights and its tokenizer, made on the spot."""

    tokenizer: Literal["bytes", "digits"] = "bytes"
    """`digits`: arithmetic only, one token per sign and tag; `bytes`: any text."""
    hidden_size: Annotated[Count, Key(config="hidden_size")] = 64
    layers: Annotated[Count, Key(config="num_hidden_layers")] = 2
    heads: Annotated[Count, Key(config="num_attention_heads")] = 4
    intermediate_size: Annotated[Count, Key(config="intermediate_size")] = 256
    init_std: Positive = 0.08
    """Standard deviation of the normal distribution that all matrices are drawn from.
    """
    max_length: Annotated[Count, Key(config="max_position_embeddings")] = 1024
    """Positions the model has, prompt and response together."""


class Model(Section):
    """The model that training starts from: `path` or `build`."""

    path: Annotated[str | None, Key(path="model", instead_of=("build",))] = None
    """A Hub id, a folder, a run folder, or `stage:NAME` of an earlier stage."""
    build: Annotated[Build | None, Key(instead_of=("path",))] = None
    revision: Annotated[
        str | None, Key(belongs_to=("path",), instead_of=("build",))
    ] = None
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
    file: Annotated[str | None, Key(path="file", instead_of=("template",))] = None
    """A template file, used byte for byte; `{column}` is filled in."""
    template: Annotated[str | None, Key(instead_of=("file",))] = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: object) -> object:
        return {"name": given} if isinstance(given, str) else given

    @property
    def spec(self) -> str | dict[str, Any]:
        """The prompt as `data.load_prompt` takes it."""
        return self.name if self.name is not None else self.stated


class Dataset(PluginSection):
    """A dataset plugin by name; its options stand beside these keys."""

    selector: ClassVar[str] = "dataset"
    dataset: Annotated[str, Key(plugin="dataset")]
    split: Annotated[str | None, Key(belongs_to=("dataset",))] = None
    path: Annotated[str | None, Key(path="file", belongs_to=("dataset",))] = None
    """A local file or folder in place of the Hub."""
    limit: Count | None = None
    """Use only the first rows."""
    correct: bool | None = None
    """Use only rows whose response is right by their truth."""


class EvalDataset(Dataset):
    """Changes to the data an eval brings along."""

    dataset: Annotated[str | None, Key(plugin="dataset")] = None  # type: ignore[assignment]


class TrainData(Section):
    """What is trained on, and how a row becomes a prompt."""

    train: Dataset
    prompt: Annotated[Prompt | None, Key(plugin="prompt")] = None

    @property
    def template(self) -> str | dict[str, Any] | None:
        """The prompt as `data.load_prompt` takes it."""
        return None if self.prompt is None else self.prompt.spec

    def parts(self) -> dict[str, Dataset]:
        """The datasets by what they are for."""
        return {"train": self.train}


class Data(TrainData):
    """What is trained on and validated with, and how a row becomes a prompt."""

    validation: Dataset | None = None

    def parts(self) -> dict[str, Dataset]:
        """The datasets by what they are for."""
        found = super().parts()
        return (
            found
            if self.validation is None
            else found | {"validation": self.validation}
        )


class Reward(PluginSection):
    """One reward function."""

    weight: Annotated[float, Key(owns=("reward_weights",))] = 1.0
    on_error: Literal["stop", "zero"] = "stop"
    """What a crash of the reward does to the run."""
    deadline: Positive | None = None
    """Seconds for one sample; the plugin's own where nothing is said."""
    decides: bool = False
    """Its verdict says what counts as correct; without one, that of the reward of the
    greatest weight does.
    """


class Loss(PluginSection):
    """The loss plugin, and how its values become one number."""

    selector: ClassVar[str] = "name"
    name: Annotated[str, Key(plugin="loss", observed=True)]
    normalize: Annotated[Normalize | None, Key(observed=True)] = None
    constant: Annotated[
        Positive | None, Key(belongs_to=("normalize",), observed=True)
    ] = None
    """The divisor of `normalize: constant`."""


class Advantage(PluginSection):
    """How rewards become advantages."""

    selector: ClassVar[str] = "name"
    name: Annotated[str, Key(plugin="advantage", observed=True)]


class EvalReward(PluginSection):
    """The reward that grades rows of one's own: a name, or a map with its options."""

    selector: ClassVar[str] = "name"
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: object) -> object:
        return {"name": given} if isinstance(given, str) else given


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
    prompt: Annotated[Prompt | None, Key(plugin="prompt")] = None
    shots: Count | None = None
    """Solved questions shown before each, of the data's train split, drawn by the seed.
    """
    shots_from: Annotated[str | None, Key(path="file")] = None
    """A file of solved questions in the place of the train split."""
    data: EvalDataset | None = None
    sampling: SamplingChanges | None = None
    reasoning: Literal["strip", "keep"] | None = None
    """Score the reply behind `</think>`, or the whole; as the eval says by default."""
    reward: Annotated[EvalReward | None, Key(plugin="reward")] = None
    """Grades the rows of `data`, of an eval of one's own: `mine: {data: {path: FILE},
    reward: NAME}`.
    """
    judge: Annotated[str | None, Key(plugin="judge")] = None
    """A judge plugin, `NAME` or `NAME:MODEL`."""
    judge_tokens: Count | None = None
    """Tokens of a judge's answer at most, its thinking included."""

    @property
    def changes(self) -> dict[str, Any]:
        """What it changes in the eval's own settings, as `EvalRequest` takes it."""
        rows = {} if self.data is None else self.data.stated
        part = {} if self.split is None else {"split": self.split}
        return {
            "options": self.options,
            "data": rows | part,
            "prompt": None if self.prompt is None else self.prompt.spec,
            "sampling": {} if self.sampling is None else self.sampling.stated,
            "reasoning": self.reasoning,
            "limit": self.limit,
            "samples": self.samples,
            "shots": self.shots,
            "shots_from": self.shots_from,
        }


class Best(Section):
    """Which checkpoint is kept as the best."""

    metric: str
    """Such as `eval/math/accuracy`."""
    mode: Literal["max", "min"] = "max"


class Iterations(Section):
    """Sample, keep what is correct, train on it, repeat."""

    iterations: Count = 5
    questions: Count
    """Questions drawn in each iteration."""
    rollouts: Count
    """Responses sampled for each question."""
    epochs: Annotated[Count, Key(owns=("num_train_epochs",))] = 1
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

    processes: Annotated[Count, Key(observed=True)] = 1
    grace_seconds: Annotated[Positive, Key(identity=False, trains=False)] = 25.0
    """From SIGTERM, SIGINT or SIGHUP until training is broken off: to finish its step
    and save a checkpoint.
    """
    deadline_seconds: Annotated[
        Positive | dict[Phase, Positive] | None, Key(identity=False, trains=False)
    ] = None
    """Seconds after which a phase counts as hanging, of all phases or by phase
    (`{grading: 600}`); where unsaid it is learned from the phase's own times.
    """


class Budget(Section):
    """Training ends with the step that reaches it; `train.max_steps` still holds."""

    tokens: Count | None = None
    """Tokens trained on or generated, prompts included: `tokens` in metrics.jsonl."""
    seconds: Positive | None = None
    """Wall clock of the training loop, evals during training included."""


class Output(Section):
    """Where run folders go."""

    root: Annotated[str, Key(owns=("output_dir",))] = "runs"
