"""The maps of a recipe, whatever its method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model, model_validator

from alignkit import sampling
from alignkit.recipe.schema.key import Key, PluginSection, Section
from alignkit.types import Normalize

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
# An empty one would end every completion at its first token.
Stop = Annotated[str, Field(min_length=1)]


class Build(Section):
    """A small model with random weights and its tokenizer, made on the spot."""

    tokenizer: Literal["bytes", "digits"] = "bytes"
    """`digits`: arithmetic only, one token per sign and tag; `bytes`: any text."""
    hidden_size: Count = 64
    layers: Count = 2
    heads: Count = 4
    intermediate_size: Count = 256
    init_std: Positive = 0.08
    """Standard deviation of the normal distribution that all matrices are drawn from.
    """
    max_length: Count = 1024
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


def _sampling_keys(optional: bool, rollouts: bool = False) -> dict[str, Any]:
    """The fields of a map of sampling options, as `alignkit.sampling` declares them."""
    found: dict[str, Any] = {}
    for name, option in sampling.OPTIONS.items():
        default = sampling.DEFAULTS[name]
        bounds = Field(
            ge=None if option.least == -float("inf") else option.least,
            gt=None if option.above == -float("inf") else option.above,
            le=None if option.most == float("inf") else option.most,
        )
        if rollouts and name == "temperature":
            bounds = Field(gt=0)  # greedy responses of one prompt are all alike
        taken: Any = list[Stop] if name == "stop" else Annotated[type(default), bounds]
        key = Key()
        if rollouts:
            key = Key(
                trl=option.trl,
                owns=tuple({option.transformers, option.vllm} - {"", option.trl}),
                observed=True,
                was=option.was,
            )
        if optional:
            found[name] = (Annotated[taken | None, key], None)
        elif name == "stop":
            found[name] = (Annotated[taken, key], Field(default_factory=list))
        else:
            found[name] = (Annotated[taken, key], default)
    return found


if TYPE_CHECKING:

    class SamplingChanges(Section):
        """How completions are drawn, where an eval's own settings are changed."""

    class _RolloutSampling(Section):
        pass

else:
    SamplingChanges = create_model(
        "Sampling",
        __base__=Section,
        __module__=__name__,
        __doc__="Changes to an eval's sampling. Stop strings are kept in the text.",
        **_sampling_keys(optional=True),
    )
    _RolloutSampling = create_model(
        "RolloutSampling",
        __base__=Section,
        __module__=__name__,
        **_sampling_keys(optional=False, rollouts=True),
    )


class OwnVllm(Section):
    """A vLLM that samples in a process of its own."""

    gpu_memory_utilization: Annotated[
        Fraction | None, Key(trl="vllm_gpu_memory_utilization")
    ] = None
    tensor_parallel: Annotated[Count, Key(trl="vllm_tensor_parallel_size")] = 1
    max_model_len: Annotated[Count | None, Key(trl="vllm_max_model_length")] = None


class Vllm(OwnVllm):
    """How vLLM serves rollouts."""

    mode: Annotated[Literal["colocate", "server"], Key(trl="vllm_mode")] = "colocate"
    sleep: Annotated[bool, Key(trl="vllm_enable_sleep_mode")] = False
    """Free vLLM's memory during the optimizer step."""
    sync_tolerance: Positive | None = None
    """Nats per token that vLLM's log-probs may differ from the trainer's after a sync;
    by the dtype where unsaid.
    """
    server: Annotated[
        str | None,
        Key(trl="vllm_server_base_url", owns=("vllm_server_host", "vllm_server_port")),
    ] = None
    """Base URL of a running server (mode: server)."""


class OwnGeneration(_RolloutSampling):
    """How responses are sampled. Stop strings are kept in the text."""

    engine: Annotated[
        Literal["auto", "transformers", "vllm"], Key(owns=("use_vllm",), observed=True)
    ] = "auto"
    vllm: OwnVllm | None = None

    @property
    def sampling(self) -> sampling.Sampling:
        """The options as engines take them."""
        stated = {name: getattr(self, name) for name in sampling.OPTIONS}
        return sampling.Sampling(**{**stated, "stop": tuple(stated["stop"])})


class Generation(OwnGeneration):
    """How rollouts are sampled. Stop strings are kept in the text."""

    vllm: Vllm | None = None


class Reward(PluginSection):
    """One reward function."""

    weight: Annotated[float, Key(owns=("reward_weights",))] = 1.0
    on_error: Literal["stop", "zero"] = "stop"
    """What a crash of the reward does to the run."""
    deadline: Positive | None = None
    """Seconds for one sample; the plugin's own where nothing is said."""


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
    data: EvalDataset | None = None
    sampling: SamplingChanges | None = None
    judge: Annotated[str | None, Key(plugin="judge")] = None
    """A judge plugin, `NAME` or `NAME:MODEL`."""

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
            "limit": self.limit,
            "samples": self.samples,
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


class Budget(Section):
    """Training ends with the step that reaches it; `train.max_steps` still holds."""

    tokens: Count | None = None
    """Tokens trained on or generated, prompts included: `tokens` in metrics.jsonl."""
    seconds: Positive | None = None
    """Wall clock of the training loop, evals during training included."""


class Output(Section):
    """Where run folders go."""

    root: Annotated[str, Key(owns=("output_dir",))] = "runs"
