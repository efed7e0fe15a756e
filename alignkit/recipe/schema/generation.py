"""How completions are drawn, in rollouts and in evals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from alignkit import sampling
from alignkit.recipe.schema.key import Count, Fraction, Key, Positive, Section

# An empty one would end every completion at its first token.
Stop = Annotated[str, Field(min_length=1)]


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
    resample_equal_groups: Annotated[int, Field(ge=0), Key(observed=True)] = 0
    """How often groups that are equal in the reward that decides are drawn again."""
