"""Batches: groups, generation batches and optimizer steps must fit into one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from alignkit.recipe.rules.rule import Facts, Problem, of
from alignkit.recipe.rules.settings import setting
from alignkit.recipe.schema import DPO, SFT, Policy, Trained


@dataclass(frozen=True)
class Batches:
    """Completions (GRPO, RLOO) or rows (SFT, DPO) over all processes."""

    microbatch: int  # of one process
    accumulation: int
    processes: int
    step: int  # an optimizer step's
    group: int = 1
    generation: int = 0  # a generation batch's; 0 where nothing is generated
    iterations: int = 1  # how often a generation batch is trained on

    @property
    def passes(self) -> int:
        """Rows that all processes take in one forward pass."""
        return self.microbatch * self.processes


def batches(config: Trained) -> Batches:
    """The arithmetic that TRL does, whether or not it comes out even."""
    microbatch = setting(config, "per_device_train_batch_size")
    accumulation = setting(config, "gradient_accumulation_steps")
    processes = config.launch.processes
    step = microbatch * accumulation * processes
    if config.method not in ("grpo", "rloo"):
        return Batches(microbatch, accumulation, processes, step)
    size = setting(config, "generation_batch_size")
    if size is None:
        slices = setting(config, "steps_per_generation") or accumulation
        size = microbatch * processes * slices
    return Batches(
        *(microbatch, accumulation, processes, step),
        group=setting(config, "num_generations"),
        generation=size,
        iterations=setting(config, "num_iterations"),
    )


@of(Policy)
def best_within_rollouts(config: Policy, facts: Facts) -> Iterator[Problem]:
    """Off-policy, a checkpoint waits for the end of its rollout batch."""
    b = batches(config)
    if not setting(config, "load_best_model_at_end") or not b.step:
        return
    steps = b.generation * b.iterations / b.step
    for name in ("eval_steps", "save_steps"):
        every = setting(config, name)
        if steps > 1 and every is not None and every % steps:
            text = (
                f"given {every}, but a checkpoint is saved only where a rollout batch"
                f" ends, every {steps:g} optimizer steps: the best one would have none."
                f" Say a multiple of {steps:g}"
            )
            yield ("train", name), text


@of(Policy)
def group_of_two(config: Policy, facts: Facts) -> Iterator[Problem]:
    """A group is compared with itself."""
    group = setting(config, "num_generations")
    if group < 2:
        text = f"{group}: a group needs at least 2 completions to compare"
        yield ("train", "num_generations"), text


@of(Policy)
def generation_size_once(config: Policy, facts: Facts) -> Iterator[Problem]:
    """The size of a generation batch is stated directly, or by its slices."""
    names = ("steps_per_generation", "generation_batch_size")
    if all(setting(config, name) is not None for name in names):
        yield ("train", names[1]), f"states again what {names[0]} says; leave one out"


@of(Policy)
def generation_of_whole_passes(config: Policy, facts: Facts) -> Iterator[Problem]:
    """A generation batch is cut into microbatches."""
    b = batches(config)
    if b.generation % b.passes:
        text = (
            f"{b.generation} is not divisible by per_device_train_batch_size x "
            f"processes ({b.microbatch} x {b.processes} = {b.passes})"
        )
        yield ("train", "generation_batch_size"), text


@of(Policy)
def generation_of_whole_groups(config: Policy, facts: Facts) -> Iterator[Problem]:
    """A generation batch holds every completion of each of its prompts."""
    b = batches(config)
    if b.generation % b.group:
        text = (
            f"the generation batch is {b.generation} completions "
            f"(per_device_train_batch_size {b.microbatch} x {b.processes} processes "
            f"x {b.generation / b.passes:g} steps), not divisible by num_generations "
            f"({b.group}); make it a multiple of {b.group}"
        )
        yield ("train", "num_generations"), text


@of(Policy)
def evaluation_of_whole_groups(config: Policy, facts: Facts) -> Iterator[Problem]:
    """So does an evaluation batch."""
    if setting(config, "eval_strategy") == "no":
        return
    size = setting(config, "per_device_eval_batch_size") * config.launch.processes
    group = setting(config, "num_generations_eval") or setting(
        config, "num_generations"
    )
    if size % group:
        text = (
            f"the evaluation batch is {size} completions over {config.launch.processes} "
            f"processes, not divisible by the {group} generations of a prompt "
            "(num_generations_eval, or else num_generations)"
        )
        yield ("train", "per_device_eval_batch_size"), text


@of(Policy)
def batch_size_of_its_own(config: Policy, facts: Facts) -> Iterator[Problem]:
    """TRL refuses what would break groups apart."""
    if setting(config, "auto_find_batch_size"):
        text = "a smaller batch might not hold whole groups; lower "
        yield ("train", "auto_find_batch_size"), text + "per_device_train_batch_size"


@of(Policy)
def enough_prompts(config: Policy, facts: Facts) -> Iterator[Problem]:
    """TRL leaves out an incomplete generation batch, be it the only one."""
    b = batches(config)
    rows, prompts = facts.train_rows, b.generation // b.group
    if rows is not None and rows < prompts:
        text = f"{rows} rows are less than one generation batch ({prompts} prompts)"
        yield ("data", "train"), f"{text}, so nothing would be trained"


@of(SFT, DPO)
def enough_rows(config: Trained, facts: Facts) -> Iterator[Problem]:
    """So is an incomplete microbatch, where `dataloader_drop_last` asks for it."""
    rows, size = facts.train_rows, batches(config).passes
    if rows is None or not setting(config, "dataloader_drop_last") or _packed(config):
        return
    if rows < size:
        text = f"{rows} rows are less than one batch ({size}) and would all be dropped"
        yield ("train", "dataloader_drop_last"), text


def _packed(config: Trained) -> bool:
    return config.method == "sft" and setting(config, "packing")


@of(Policy)
def tensor_parallel(config: Policy, facts: Facts) -> Iterator[Problem]:
    """vLLM's shards are divided among the training processes."""
    vllm, processes = config.generation.vllm, config.launch.processes
    if config.generation.engine != "vllm" or vllm is None:
        return
    if processes % vllm.tensor_parallel:
        text = f"{vllm.tensor_parallel} does not divide {processes} processes"
        yield ("generation", "vllm", "tensor_parallel"), text


RULES = (
    best_within_rollouts,
    group_of_two,
    generation_size_once,
    generation_of_whole_passes,
    generation_of_whole_groups,
    evaluation_of_whole_groups,
    batch_size_of_its_own,
    enough_prompts,
    enough_rows,
    tensor_parallel,
)
