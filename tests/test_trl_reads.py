"""What the rows say of who reads a field is what the installed TRL's and transformers' sources say."""

import ast
import itertools
import re

import pytest
from trl_source import (
    UNKNOWN,
    Source,
    classes,
    of_transformers,
    of_trl,
    own_expressions,
    package,
    parsed,
    statements,
    value,
)

from alignkit import recipe
from alignkit.errors import RecipeError
from alignkit.recipe import trl, trl_reads
from alignkit.recipe.schema import METHODS
from alignkit.recipe.trl_fields import CONFIGS, fields

TRAINED = ("sft", "grpo", "rloo", "dpo")
CLIPPED = ("grpo", "dr_grpo", "bnpo", "dapo", "luspo")
# Read where it is copied or saved, and acts where the row says.
COPIED = {
    # The value itself is what switches its own reading on.
    "entropy_coef", "use_adaptive_entropy",
    # Tidied into another field by the config, which the row of that field speaks of.
    "vllm_importance_sampling_cap",
}  # fmt: skip


def unread(method, name, train=(), **recipe):
    settings = trl.effective({"train": dict(train), **recipe}, method)
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
            "loss.name": "trl", "advantage.name": None, "launch.processes": 2, "track": ["trackio"],
        }  # fmt: skip


@pytest.mark.parametrize("method", TRAINED)
def test_a_field_is_read_where_trls_source_reads_it(method):
    source, wrong, judged = of_trl(method), {}, 0
    refused = set(METHODS[method].unread)
    own = source.fields - of_transformers().fields - COPIED - refused
    for stated, settings in grid(method, source):
        if source.refuses(settings):
            continue
        judged += 1
        possible = source.possible(settings)
        for name in own:
            said = trl_reads.unread(method, name, settings) is None
            # what alignkit reads itself, TRL need not
            ours = said and any(f'train.get("{name}")' in text for text in OUR_TRAINERS)
            if said is not (name in possible) and not ours:
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
    here = {
        name
        for row in trl_reads.ROWS
        if row.methods == trl_reads.ALL
        for name in row.fields
    }
    seen = (
        (here & source.read())
        - set(ELSEWHERE)
        - set(OPTIMIZERS)
        - set(SCHEDULES)
        - DISTRIBUTED
    )
    switches = {
        "save_strategy": ("no", "steps", "epoch"),
        "eval_strategy": ("no", "steps", "epoch"),
        "logging_strategy": ("no", "steps", "epoch"),
        **dict.fromkeys(
            ("gradient_checkpointing", "use_liger_kernel", "push_to_hub", "fsdp"),
            (True, False),
        ),
    }
    defaults = {name: field.default for name, field in fields(CONFIGS["sft"]).items()}
    defaults |= {"loss.name": "trl", "advantage.name": None}
    defaults |= {"launch.processes": 2, "track": []}
    states = set()
    for name, choices in switches.items():
        for choice in choices:
            settings = defaults | {"eval_steps": 5, name: choice}
            evaluates, saves = (
                settings[f"{kind}_strategy"] != "no" for kind in ("eval", "save")
            )
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


OPTIMIZERS = (
    "optim_args",
    "optim_target_modules",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
)
SCHEDULES = ("warmup_steps", "lr_scheduler_kwargs")
DISTRIBUTED = {name for name in fields(CONFIGS["sft"]) if name.startswith("ddp_")}
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
        assert (unread("sft", "warmup_steps", train) is None) is (
            "num_warmup_steps" in call
        ), kind
        assert (unread("sft", "lr_scheduler_kwargs", train) is None) is (
            "**" in call
        ), kind
    assert len(handed) > 10


def members(file, enum):
    """The values of an enum of transformers', with the names that code calls them by, in small letters."""
    body = classes(package("transformers", file))[enum].body
    return {
        n.value.value: n.targets[0].id.lower()
        for n in body
        if isinstance(n, ast.Assign)
    }


def handlers():
    """Which function of transformers makes an optimizer, by the name of the optimizer."""
    body = parsed(package("transformers", "trainer_optimizer.py")).body
    functions = {n.name: n for n in body if isinstance(n, ast.FunctionDef)}
    stated = [n for n in body if isinstance(n, ast.Assign | ast.AnnAssign)]
    values = {
        ast.unparse(getattr(n, "target", None) or n.targets[0]): n.value for n in stated
    }
    table = values["_OPTIMIZER_HANDLERS"]
    found = {}
    for key, call in zip(table.keys, table.values, strict=True):
        listed = [key] if key is not None else values[call.args[0].id].elts
        function = call.id if key is not None else call.args[1].id
        found |= {member.attr.lower(): functions[function] for member in listed}
    return found


def test_an_optimizer_takes_betas_and_arguments_where_transformers_hands_them_over():
    by_name, judged = handlers(), 0
    for kind, member in members("training_args.py", "OptimizerNames").items():
        texts = []
        for node, guards in statements(by_name[member].body, ()):
            settings = {"optim": member, "local optim_name": kind}
            known = [value(g.test, None, settings) for g in guards]
            if all(
                v is UNKNOWN or bool(v) is g.wanted
                for v, g in zip(known, guards, strict=True)
            ):
                texts += [ast.unparse(part) for part in own_expressions(node)]
        text = "\n".join(texts)
        train = {"optim": kind}
        # The 8-bit optimizers start from Adam's arguments, and RMSprop and Lion take others in their place.
        betas = "adam_beta1" in text or (
            "adam_kwargs" in text and not re.search("rmsprop|lion", kind)
        )
        for field, handed in (
            ("adam_beta1", betas),
            ("adam_beta2", betas),
            ("adam_epsilon", betas and "lion" not in kind),
            ("optim_args", "optim_args" in text),
            ("optim_target_modules", "_setup_low_rank_optimizer" in text),
        ):
            assert (unread("sft", field, train) is None) is handed, (kind, field)
            judged += 1
    assert judged > 100


def test_every_field_and_condition_of_a_row_is_one_of_trls():
    for row in trl_reads.ROWS:
        for method in row.methods:
            settings = trl.effective({}, method)
            assert set(row.fields) <= set(fields(CONFIGS[method])), (method, row.fields)
            assert set(row.needs) <= set(settings), (method, row.needs)


SEAMS = {
    "sft": "compute_loss",
    **dict.fromkeys(("dpo", "grpo", "rloo"), "_compute_loss"),
}


@pytest.mark.parametrize("method", TRAINED)
def test_what_only_trls_loss_reads_is_refused_beside_a_loss_plugin(method):
    """A plugin's loss takes the place of the method that TRL computes its own in."""
    source = of_trl(method)
    reads = {
        name: [r for r in source.reads if r.name == name] for name in source.fields
    }
    only = {
        name
        for name, found in reads.items()
        if found and all(r.method == SEAMS[method] for r in found)
    }
    ours = {name for name in only if any(f".{name}" in text for text in OUR_TRAINERS)}
    needing = trl_reads.needing(method, "loss.name")
    # What the trainers of alignkit read themselves is read beside a plugin too.
    assert only - ours - {"average_tokens_across_devices"} <= needing
    for name in needing & set(reads):
        elsewhere = {r.method for r in reads[name]} - {SEAMS[method]}
        assert elsewhere <= COPIES, name


# Where a trainer checks, saves and loads its settings, and DPO prepares its reference.
COPIES = {
    *("__init__", "__post_init__", "_save_checkpoint", "_load_optimizer_and_scheduler"),
    "compute_ref_log_probs",
}
OUR_TRAINERS = [file.read_text() for file in package("alignkit", "train").glob("*.py")]


@pytest.mark.parametrize(
    ("method", "train", "recipe", "read", "not_read"),
    [
        ("grpo", {}, {}, "epsilon epsilon_high delta beta", "sapo_temperature_pos vespo_k_pos entropy_target"),
        ("grpo", {}, {}, "chat_template_kwargs", ""),
        ("grpo", {}, {"loss": {"loss_type": "cispo"}}, "epsilon_high epsilon", "delta sapo_temperature_neg"),
        ("grpo", {"epsilon_high": 5.0}, {"loss": {"loss_type": "cispo"}}, "epsilon_high", "epsilon"),
        ("grpo", {}, {"loss": {"loss_type": "sapo"}}, "sapo_temperature_pos", "epsilon vespo_k_pos"),
        ("grpo", {"use_adaptive_entropy": True}, {}, "entropy_target entropy_coef_max", "use_bias_correction_kl"),
        ("grpo", {"beta": 0.1}, {}, "use_bias_correction_kl sync_ref_model", "ref_model_sync_steps"),
        ("grpo", {"beta": 0.1, "sync_ref_model": True}, {}, "ref_model_sync_steps ref_model_mixup_alpha", ""),
        ("grpo", {}, {}, "", "max_tool_calling_iterations log_multimodal do_train"),
        ("grpo", {}, {"generation": {"engine": "transformers"}}, "cache_implementation", "vllm_model_impl"),
        ("grpo", {}, {"generation": {"engine": "auto"}}, "cache_implementation vllm_model_impl", "vllm_group_port"),
        (
            *("grpo", {}, {"generation": {"engine": "vllm"}}, "vllm_importance_sampling_correction"),
            "cache_implementation vllm_importance_sampling_mode",
        ),
        (
            "grpo",
            {"vllm_importance_sampling_correction": False},
            {"generation": {"engine": "vllm", "vllm": {"mode": "server", "server": "http://x"}}},
            "vllm_server_timeout vllm_group_port",
            "vllm_importance_sampling_mode vllm_model_impl vllm_server_port",
        ),
        ("dpo", {}, {}, "beta ld_alpha", "label_smoothing discopop_tau f_alpha_divergence_coef ref_model_sync_steps"),
        ("dpo", {}, {"loss": {"loss_type": ["sft", "robust"]}}, "label_smoothing", "discopop_tau"),
        ("dpo", {}, {"loss": {"name": "own"}}, "max_length", "beta ld_alpha label_smoothing use_weighting"),
        ("sft", {}, {}, "packing warmup_steps save_steps", "packing_strategy eval_packing eval_steps eval_delay"),
        ("sft", {"lr_scheduler_type": "constant"}, {}, "", "warmup_steps lr_scheduler_kwargs"),
        ("sft", {"lr_scheduler_type": "constant", "optim": "schedule_free_sgd"}, {}, "warmup_steps", "adam_beta1"),
        ("sft", {"save_strategy": "no"}, {}, "", "save_steps save_total_limit metric_for_best_model"),
        ("sft", {"save_strategy": "epoch"}, {}, "save_total_limit", "save_steps"),
        ("sft", {"load_best_model_at_end": True}, {}, "metric_for_best_model greater_is_better", ""),
        ("sft", {"eval_strategy": "epoch"}, {}, "per_device_eval_batch_size eval_packing", "eval_steps"),
        ("sft", {"logging_strategy": "epoch"}, {}, "", "logging_steps"),
        ("sft", {}, {"launch": {"processes": 2}}, "ddp_timeout", "fsdp_config"),
        ("sft", {"fsdp": True}, {"track": ["trackio"]}, "fsdp_config project", "ddp_timeout"),
        ("expert_iteration", {}, {}, "packing", "packing_strategy"),
        ("expert_iteration", {}, {"loss": {"name": "own"}}, "packing", "label_smoothing_factor"),
    ],
)  # fmt: skip
def test_what_is_read_hangs_on_the_settings_in_force(
    method, train, recipe, read, not_read
):
    assert readable(method, read, train, **recipe) == set(read.split())
    assert readable(method, not_read, train, **recipe) == set()


def test_the_reason_names_the_settings_and_what_they_are():
    assert unread("sft", "save_steps", {"save_strategy": "no"}) == (
        "is read only with train.save_strategy: steps (train.save_strategy is no); leave it out or change that"
    )
    sampled = unread("grpo", "vllm_model_impl", generation={"engine": "transformers"})
    assert (
        "generation.engine: vllm or auto (generation.engine is transformers)" in sampled
    )
    assert "train.eval_strategy: steps or epoch" in unread("sft", "eval_delay")
    assert "launch.processes above 1 (launch.processes is 1)" in unread(
        "sft", "ddp_timeout"
    )
    assert "loss.name: trl (loss.name is own)" in unread(
        "grpo", "epsilon", loss={"name": "own"}
    )
    assert "no tools are handed to TRL" in unread("grpo", "max_tool_calling_iterations")
    smoothing = unread(
        "dpo", "label_smoothing", loss={"loss_type": ["sigmoid", "hinge"]}
    )
    assert (
        "exo_pair, robust, aot or aot_unpaired (loss.loss_type is sigmoid, hinge)"
        in smoothing
    )


RECIPE = """\
method: grpo
model: {path: x}
data: {train: {dataset: d}}
rewards: {r: {}}
loss: {name: trl, loss_type: dapo}
train:
  sapo_temperature_pos: 1.0
  learning_rate: fast
  save_strategy: "no"
  save_steps: 5
"""


def test_a_recipe_with_fields_that_nothing_reads_names_each_place(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text(RECIPE)
    with pytest.raises(RecipeError) as raised:
        recipe.load(file)
    sapo, rate, steps = (
        text.partition("one.yaml")[2] for text in raised.value.problems
    )
    assert sapo.startswith(
        ":7:3: train.sapo_temperature_pos: is read only with loss.loss_type: sapo"
    )
    assert rate.startswith(":8:3: train.learning_rate: given 'fast'")
    assert steps.startswith(
        ":10:3: train.save_steps: is read only with train.save_strategy: steps"
    )


def test_a_key_beside_train_that_trl_would_not_read_is_refused_too(tmp_path):
    file = tmp_path / "one.yaml"
    vllm = "{mode: server, server: 'http://x', tensor_parallel: 2, sleep: true}"
    text = RECIPE.replace(
        "  sapo_temperature_pos: 1.0\n  learning_rate: fast\n", ""
    ).replace("  save_steps: 5\n", "")
    file.write_text(text + f"generation: {{engine: vllm, vllm: {vllm}}}\n")
    with pytest.raises(RecipeError) as raised:
        recipe.load(file)
    places = [text.split(" ")[1] for text in raised.value.problems]
    assert places == ["generation.vllm.tensor_parallel:", "generation.vllm.sleep:"]
    assert "generation.vllm.mode: colocate" in raised.value.problems[0]


def test_the_recipe_of_a_run_is_read_as_it_was_run(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("fast", "1e-6"))
    (tmp_path / "manifest.json").write_text("{}")
    assert recipe.load(file).config.train["save_steps"] == 5
    with pytest.raises(RecipeError, match=r"train.vespo_k_pos"):
        recipe.load(file, sets=["train.vespo_k_pos=1"])


TOY = """
class Toy(Trainer):
    def __init__(self, args):
        self.kind = args.kind
        self.high = args.high if args.high is not None else args.low
        self.on = self.high > 0 or args.switch
        if args.kind == "bad" and args.low:
            raise ValueError
        if args.helped:
            self.helper = Helper(size=args.size, on=self.kind)

    def train(self):
        if self.kind == "a":
            return self.high
        self._more()
        return args.always

    def _more(self):
        if self.tools and self.args.tooled:
            pass

class Helper:
    def __init__(self, size, on):
        self.on = on
        self.width = size

    def run(self):
        return self.width if self.on == "b" else 0

class ToyConfig:
    kind: str
"""


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({"kind": "a"}, {"kind", "helped", "high", "low"}),
        ({"kind": "a", "high": 2}, {"kind", "helped", "high"}),
        ({"kind": "b"}, {"kind", "helped", "always"}),
        ({"kind": "b", "helped": True}, {"kind", "helped", "always", "size"}),
        ({"kind": "a", "helped": True}, {"kind", "helped", "high", "low"}),
    ],
)  # fmt: skip
def test_reads_are_found_with_their_conditions(settings, read):
    nodes = {n.name: n for n in ast.parse(TOY).body}
    source = Source([nodes["Toy"]], nodes["ToyConfig"], {"Helper": nodes["Helper"]})
    whole = {"high": None, "low": 1, "switch": False, "helped": False} | settings
    assert source.possible(whole) == read
    assert not source.refuses(whole) and source.refuses(whole | {"kind": "bad"})
