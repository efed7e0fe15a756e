"""The first rows as training, rollouts and evals see them: one prompt, one text; and
what draws the rollouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignkit import data
from alignkit.data.encode import LONGEST_PROMPT
from alignkit.engines.prompts import PromptCoder
from alignkit.models.shape import ENDLESS
from alignkit.proofs.record import Finding
from alignkit.recipe.trl import setting
from alignkit.sampling import OPTIONS
from alignkit.train.proving.rows import bare
from alignkit.train.proving.settings import plain
from alignkit.train.proving.subject import Subject

Encoded = Mapping[str, Any]


def prove_text(subject: Subject) -> Finding:
    """Claim `one_text`: by the trainer's own data set and tokenising, against the way
    of the engines that evaluate.
    """
    coder = PromptCoder(subject.tokenizer, "the model", ENDLESS)
    rendered = [data.render(subject.prompt, row) for row in subject.rows]
    evaluated = coder.encode(rendered)
    for number, ids in enumerate(evaluated):
        if fault := _prompt_fault(subject.tokenizer, ids, rendered[number]):
            return _failed(number, fault)
    if subject.config.method in ("grpo", "rloo"):
        rolled = subject.trainer._tokenize_prompts(rendered)[0]
        for number, (one, other) in enumerate(zip(evaluated, rolled, strict=True)):
            if one != list(other):
                return _failed(number, _differ(subject, one, other))
        return Finding(value=float(len(evaluated)), unit="rows")
    if subject.config.method == "sft" and setting(subject.config, "packing"):
        return Finding(unproven="rows are packed, in another order than they were read")
    return _trained(subject, evaluated)


def _trained(subject: Subject, evaluated: Sequence[list[int]]) -> Finding:
    """The encoded rows beside the raw ones, of which too long ones are left out."""
    limit = setting(subject.config, "max_length")
    encoded = iter(subject.encoded)
    count = 0
    for number, (row, ids) in enumerate(zip(subject.rows, evaluated, strict=True)):
        if limit is not None and len(ids) > LONGEST_PROMPT * limit:
            continue
        for before, response, stated in _parts(next(encoded), row, len(ids)):
            count += 1
            if before != ids:
                return _failed(number, _differ(subject, ids, before))
            whole = limit is None or len(ids) + len(response) < limit
            if whole and (fault := _response_fault(subject, response, stated)):
                return _failed(number, fault)
    return Finding(value=float(count), unit="texts")


def _parts(
    encoded: Encoded, row: Mapping[str, Any], length: int
) -> Iterator[tuple[list[int], list[int], str]]:
    """Prompt and response tokens, and the response as it stands in the row."""
    if "prompt_ids" in encoded:
        for side in ("chosen", "rejected"):
            yield encoded["prompt_ids"], encoded[f"{side}_ids"], row[side]
        return
    labels = encoded["labels"]
    start = next((n for n, label in enumerate(labels) if label != -100), len(labels))
    start = start or length  # the prompt is trained on too
    ids = encoded["input_ids"]
    yield ids[:start], ids[start:], row["response"]


def _prompt_fault(tokenizer: Any, ids: Sequence[int], rendered: Any) -> str:
    ends = isinstance(rendered, str) and rendered.endswith(tokenizer.eos_token)
    if isinstance(rendered, str) and ids[-1] == tokenizer.eos_token_id and not ends:
        return "its prompt ends with the end token"
    start = tokenizer.bos_token_id
    if start is not None and list(ids[:2]) == [start, start]:
        return "its prompt begins with two start tokens"
    return ""


def _response_fault(subject: Subject, ids: Sequence[int], stated: str) -> str:
    tokenizer = subject.tokenizer
    end = tokenizer.eos_token_id
    if ids[-1] != end or ids[-2:-1] == [end]:
        return "its response does not end with one end token"
    text = tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False)
    if "".join(stated.split()) not in "".join(text.split()):
        return (
            f"of its response {stated[:60]!r} the template leaves {text[:60]!r} to be"
            " trained on"
        )
    return ""


def _differ(subject: Subject, ids: Sequence[int], other: Sequence[int]) -> str:
    one, two = (subject.tokenizer.decode(list(part)[-20:]) for part in (ids, other))
    return f"its prompt ends …{one!r} in evals and …{two!r} in training"


def _failed(number: int, fault: str) -> Finding:
    return Finding(
        value=1.0,
        unit="rows",
        fault=f"row {number} of data.train: {fault}",
        cure="Take another prompt or chat template.",
    )


def prove_sampler(subject: Subject) -> Finding:
    """Claim `policy_sampler`: the model's own generation settings are out of force, and
    so is everything that nobody stated.
    """
    from transformers import GenerationConfig

    trainer = subject.trainer
    unset = plain(GenerationConfig().to_dict())
    model = trainer.accelerator.unwrap_model(trainer.model)
    wrong = _beyond(bare(model).generation_config, unset, set())
    if not trainer.use_vllm:
        stated = {*_STATED, *(subject.config.train.get("generation_kwargs") or {})}
        wrong |= _beyond(trainer.generation_config, unset, stated)
    if not wrong:
        return Finding(value=0.0, unit="settings")
    return Finding(
        value=float(len(wrong)),
        unit="settings",
        fault="rollouts would be drawn with what no key of the recipe states: "
        + ", ".join(f"{name} {value}" for name, value in sorted(wrong.items())),
        cure="State it under generation, or leave it out of the model's own settings.",
    )


# What a recipe's `generation` says, and what every generation is told.
_STATED = {
    *OPTIONS,
    *(option.transformers for option in OPTIONS.values()),
    *("do_sample", "cache_implementation", "disable_compile"),
}
_IDS = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}


def _beyond(config: Any, unset: Mapping[str, Any], stated: set[str]) -> dict[str, Any]:
    """The settings in force that are neither stated nor unset."""
    known = plain(config.to_dict())
    return {
        name: value
        for name, value in known.items()
        if name not in stated | _IDS and value != unset.get(name) and value is not None
    }
