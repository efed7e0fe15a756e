"""What the rows say of who reads a field is what the installed TRL's and transformers' sources say."""

import itertools

import pytest
from trl_source import UNKNOWN, Reads, own_fields

from alignkit.recipe import trl, trl_reads
from alignkit.recipe.trl_fields import CONFIGS, fields

METHODS = ("sft", "grpo", "rloo", "dpo")
CLIPPED = ("grpo", "dr_grpo", "bnpo", "dapo", "luspo")
# Read where it is copied or saved, and acts where the row says.
COPIED = {
    # The value itself is what switches its own reading on.
    "entropy_coef", "use_adaptive_entropy",
    # Tidied into another field by the config, which the row of that field speaks of.
    "vllm_importance_sampling_cap",
}  # fmt: skip


def unread(method, name, train=(), **recipe):
    settings = trl.in_force({"train": dict(train), **recipe}, method)
    return trl_reads.unread(method, name, settings)


def readable(method, names, train=(), **recipe):
    """Those of the fields that are read."""
    return {
        name for name in names.split() if unread(method, name, train, **recipe) is None
    }


def variations(method, conditions):
    """Settings of one field each: every choice, both truth values, and something where nothing is the default."""
    for name, field in fields(CONFIGS[method]).items():
        if name not in conditions:
            continue
        kinds = {
            arm.get("type") for arm in (field.schema, *field.schema.get("anyOf", ()))
        }
        if method == "dpo" and name == "loss_type":
            yield from ({name: [choice]} for choice in field.choices)
        elif field.choices:
            yield from ({name: choice} for choice in field.choices)
        elif "boolean" in kinds:
            yield from ({name: value} for value in (True, False))
        elif field.default is None or field.default == 0:
            value = next((v for k, v in SAMPLES.items() if k in kinds), None)
            yield {name: value}


SAMPLES = {
    "number": 0.5,
    "integer": 2,
    "string": "x",
    "object": {"a": 1},
    "array": ["x"],
}
BASES = {
    "sft": [{}, {"packing": True}, {"eval_strategy": "steps"}],
    "dpo": [
        {"label_smoothing": 0.1},
        {"precompute_ref_log_probs": True, "label_smoothing": 0.1},
    ],
    "grpo": [
        *(
            {},
            {"beta": 0.1},
            {"use_vllm": True},
            {"use_vllm": True, "vllm_mode": "server"},
        ),
        *({"loss_type": kind} for kind in ("cispo", "sapo", "vespo")),
        {"eval_strategy": "epoch"},
    ],
    "rloo": [
        {},
        {"beta": 0.0},
        {"use_vllm": True},
        {"use_vllm": True, "vllm_mode": "server"},
        {"eval_strategy": "epoch"},
    ],
}


def grid(method, source):
    """Settings of all fields: some bases, each with one more change to what anything hangs on."""
    conditions = source.conditions() | {
        key for row in trl_reads.ROWS for key in row.needs
    }
    defaults = {name: field.default for name, field in fields(CONFIGS[method]).items()}
    for base, changed in itertools.product(
        BASES[method], [{}, *variations(method, conditions)]
    ):
        settings = defaults | base | changed
        evaluates = settings["eval_strategy"] != "no"
        if settings.get(
            "use_transformers_paged"
        ):  # an old name, which the config moves
            settings["use_transformers_continuous_batching"] = True
        yield base | changed, settings | {
            # What stands in TRL's functions under these names.
            "do_eval": evaluates,
            "local mode": UNKNOWN if evaluates else "train",
            "local eval_dataset": UNKNOWN if evaluates else None,
            "local packing": settings.get("packing") or (evaluates and settings.get("eval_packing")),
            "local loss_type": settings["loss_type"][0] if method == "dpo" else UNKNOWN,
            "loss": "trl", "advantage": None, "processes": 2, "track": ["trackio"],
        }  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_field_is_read_where_trls_source_reads_it(method):
    source = Reads(method)
    wrong = {}
    never = {name for row in trl_reads.ROWS for name in row.fields if row.never}
    for stated, settings in grid(method, source):
        possible = source.all_possible(settings)
        for name in sorted(
            (own_fields(method) - COPIED - source.base_fields())
            | (never & source.names())
        ):
            said = trl_reads.unread(method, name, settings) is None
            if said is not (name in possible):
                wrong.setdefault((name, "read" if said else "unread"), stated)
    assert not wrong, "\n".join(f"{name}: the rows say {said}, TRL's source does not, with {stated}"
                                for (name, said), stated in wrong.items())  # fmt: skip
