"""What the rows say of who reads a field is what the installed TRL's and transformers' sources say."""

import ast
import itertools
import re

import pytest
from trl_source import UNKNOWN, classes, of_transformers, of_trl, own_expressions, package, parsed, statements, value

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
    source, wrong, judged = of_trl(method), {}, 0
    refused = set(trl.OWNED_BY_METHOD.get(method, ()))
    own = source.fields - of_transformers().fields - COPIED - refused
    for stated, settings in grid(method, source):
        if source.refuses(settings):
            continue
        judged += 1
        possible = source.possible(settings)
        for name in own:
            said = trl_reads.unread(method, name, settings) is None
            if said is not (name in possible):
                wrong.setdefault((name, "read" if said else "unread"), stated)
    assert judged > 10
    assert not wrong, "\n".join(
        f"{name}: the rows say {said}, TRL's source does not, with {stated}"
        for (name, said), stated in wrong.items()
    )


# Fields of transformers' own whose rows say more than the branches of its trainer do.
ELSEWHERE = {
    "eval_on_start": "it evaluates, and there is nothing to evaluate on",
    "eval_use_gather_object": "handed to accelerate, which gathers in evaluations",
    "per_device_eval_batch_size": "by way of a property",
    "bf16_full_eval": "checked with the dtypes",
    "fp16_full_eval": "checked with the dtypes",
    "save_total_limit": "also to keep the best checkpoint, of which there is none",
    "save_only_model": "checked against the other settings",
    "metric_for_best_model": "noted in the trainer's state, which three settings use",
    "greater_is_better": "noted in the trainer's state, which three settings use",
}


def test_a_field_of_transformers_is_read_where_its_source_reads_it():
    source, wrong = of_transformers(), set()
    here = {name for row in trl_reads.ROWS if row.methods == trl_reads.ALL for name in row.fields}
    seen = (here & source.read()) - set(ELSEWHERE) - set(OPTIMIZERS) - set(SCHEDULES) - DISTRIBUTED
    switches = {
        "save_strategy": ("no", "steps", "epoch"),
        "eval_strategy": ("no", "steps", "epoch"),
        "logging_strategy": ("no", "steps", "epoch"),
        **dict.fromkeys(("gradient_checkpointing", "use_liger_kernel", "push_to_hub", "fsdp"), (True, False)),
    }
    defaults = {name: field.default for name, field in fields(CONFIGS["sft"]).items()}
    defaults |= {"loss": "trl", "advantage": None, "processes": 2, "track": []}
    states = set()
    for name, choices in switches.items():
        for choice in choices:
            settings = defaults | {"eval_steps": 5, name: choice}
            evaluates, saves = (settings[f"{kind}_strategy"] != "no" for kind in ("eval", "save"))
            settings |= {
                "local eval_dataset": UNKNOWN if evaluates else None,
                "local self.control.should_evaluate": UNKNOWN if evaluates else False,
                "local self.control.should_save": UNKNOWN if saves else False,
                "local self.compute_metrics": None,
                "eval_on_start": False,
            }
            possible = source.possible(settings)
            for field in seen:
                never = any(row.never for row in trl_reads.rows("sft", field))
                said = trl_reads.unread("sft", field, settings) is None
                states.add((field, said))
                if said is not (field in possible) and not never:
                    wrong.add((field, said, name, choice))
    assert not wrong
    # Each is seen in both states.
    assert {f for f in seen if {(f, True), (f, False)} - states} <= NEVER


OPTIMIZERS = ("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")
SCHEDULES = ("warmup_steps", "lr_scheduler_kwargs")
DISTRIBUTED = {
    name for name in fields(CONFIGS["sft"]) if name.startswith("ddp_")
}
NEVER = {name for row in trl_reads.ROWS for name in row.fields if row.never}


def test_a_schedule_takes_warm_up_and_arguments_where_transformers_hands_them_over():
    tree = parsed(package("transformers", "optimization.py"))
    (function,) = [n for n in tree.body if getattr(n, "name", "") == "get_scheduler"]
    handed = {}
    for kind, member in members("trainer_utils.py", "SchedulerType").items():
        for node, guards in statements(function.body, ()):
            known = [value(g.test, None, {"local name": member}) for g in guards]
            if isinstance(node, ast.Return) and "schedule_func" in ast.unparse(node) and all(
                v is UNKNOWN or bool(v) is g.wanted for v, g in zip(known, guards, strict=True)
            ):  # fmt: skip
                handed[kind] = ast.unparse(node)
                break
    for kind, call in handed.items():
        train = {"lr_scheduler_type": kind}
        assert (unread("sft", "warmup_steps", train) is None) is ("num_warmup_steps" in call), kind
        assert (unread("sft", "lr_scheduler_kwargs", train) is None) is ("**" in call), kind
    assert len(handed) > 10


def members(file, enum):
    """The values of an enum of transformers', with the names that code calls them by, in small letters."""
    body = classes(package("transformers", file))[enum].body
    return {n.value.value: n.targets[0].id.lower() for n in body if isinstance(n, ast.Assign)}


def handlers():
    """Which function of transformers makes an optimizer, by the name of the optimizer."""
    file = parsed(package("transformers", "trainer_optimizer.py"))
    functions = {n.name: n for n in file.body if isinstance(n, ast.FunctionDef)}
    lists = {n.targets[0].id: n.value.elts for n in file.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.List)}
    (table,) = [n.value for n in file.body if isinstance(n, ast.AnnAssign) and "HANDLERS" in n.target.id]
    found = {}
    for key, call in zip(table.keys, table.values, strict=True):
        named = [key] if key is not None else lists[call.args[0].id]
        function = call.id if key is not None else call.args[1].id
        found |= {member.attr.lower(): functions[function] for member in named}
    return found


def test_an_optimizer_takes_betas_and_arguments_where_transformers_hands_them_over():
    by_name, judged = handlers(), 0
    for kind, member in members("training_args.py", "OptimizerNames").items():
        texts = []
        for node, guards in statements(by_name[member].body, ()):
            settings = {"optim": member, "local optim_name": kind}
            known = [value(g.test, None, settings) for g in guards]
            if all(v is UNKNOWN or bool(v) is g.wanted for v, g in zip(known, guards, strict=True)):
                texts += [ast.unparse(part) for part in own_expressions(node)]
        text = "\n".join(texts)
        train = {"optim": kind, "optim_target_modules": "all-linear"}
        # The 8-bit optimizers start from Adam's arguments, and RMSprop and Lion take others in their place.
        betas = "adam_beta1" in text or ("adam_kwargs" in text and not re.search("rmsprop|lion", kind))
        for field, handed in (
            ("adam_beta1", betas),
            ("adam_beta2", betas),
            ("adam_epsilon", betas and "lion" not in kind),
            ("optim_args", "optim_args" in text),
        ):
            assert (unread("sft", field, train) is None) is handed, (kind, field)
            judged += 1
    assert judged > 100
