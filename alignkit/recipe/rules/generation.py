"""Rollouts: engine, length, stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alignkit.errors import nearest
from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.rules.settings import sampling, setting
from alignkit.recipe.schema import RLOO, Policy, Sampled
from alignkit.recipe.trl_fields import BATCHING, fields


@of(Sampled)
def least_and_most(config: Sampled, facts: Facts) -> Iterator[Problem]:
    """A response cannot be longer than allowed."""
    low, high = (sampling(config, f"{end}_new_tokens") for end in ("min", "max"))
    if low > high:
        text = f"{low} is more than max_new_tokens ({high})"
        yield ("generation", "min_new_tokens"), text


@of(Sampled)
def vllm_without_vllm(config: Sampled, facts: Facts) -> Iterator[Problem]:
    """What only vLLM reads is stated only where it may run."""
    if config.generation.engine != "transformers":
        return
    if config.generation.vllm is not None:
        yield ("generation", "vllm"), "is read only where the engine is vllm or auto"


@of(Policy)
def vllm_server(config: Policy, facts: Facts) -> Iterator[Problem]:
    """A server has an address."""
    vllm = config.generation.vllm
    if vllm is not None and vllm.mode == "server" and vllm.server is None:
        text = "mode: server needs the server's URL"
        yield ("generation", "vllm", "server"), text


@of(RLOO)
def truncation_and_stops(config: RLOO, facts: Facts) -> Iterator[Problem]:
    """TRL puts the KL into the reward before it is known which responses ended."""
    masked = setting(config, "mask_truncated_completions")
    own = config.advantage is not None
    if masked and not own and setting(config, "beta") and sampling(config, "stop"):
        text = (
            "would put the KL of responses that generation.stop has not ended into TRL's"
            " advantages; say train.beta: 0, or name an advantage plugin"
        )
        yield ("train", "mask_truncated_completions"), text


@of(Policy)
def one_response_each(config: Policy, facts: Facts) -> Iterator[Problem]:
    """TRL repeats prompts itself."""
    stated = config.train.get("generation_kwargs") or {}
    for name in ("num_return_sequences", "n"):
        if stated.get(name, 1) != 1:
            text = "use train.num_generations: TRL repeats the prompts itself"
            yield ("train", "generation_kwargs", name), text


@of(Policy)
def columns_for_rewards(config: Policy, facts: Facts) -> Iterator[Problem]:
    """Rewards are given the row's truth."""
    if setting(config, "remove_unused_columns"):
        text = "would take the truth away from the rewards; leave it out"
        yield ("train", "remove_unused_columns"), text


@of(Policy)
def continuous_batching(config: Policy, facts: Facts) -> Iterator[Problem]:
    """A map of which transformers makes an object, though no annotation says so."""
    field = "transformers_continuous_batching_config"
    stated, known = config.train.get(field), fields(BATCHING)
    for name in stated if isinstance(stated, Mapping) else ():
        if name not in known:
            text = f"ContinuousBatchingConfig has no such field; {nearest(name, known)}"
            yield ("train", field, name), text


@of(Policy)
def groups_on_one_process(config: Policy, facts: Facts) -> Iterator[Problem]:
    """What is drawn again is seen by one process alone, and groups may span several."""
    if config.generation.resample_equal_groups and config.launch.processes > 1:
        text = f"needs launch.processes 1; given {config.launch.processes}"
        yield ("generation", "resample_equal_groups"), text


RULES = (
    least_and_most,
    vllm_without_vllm,
    vllm_server,
    truncation_and_stops,
    one_response_each,
    columns_for_rewards,
    continuous_batching,
    groups_on_one_process,
)
