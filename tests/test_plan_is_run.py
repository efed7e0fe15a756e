"""`align plan` refuses a recipe exactly where `align run` would stop at it.

Settings are drawn by a fixed seed; each recipe is planned, and taken to its trainer,
with its optimizer and scheduler, as if nothing had been checked before.
"""

from __future__ import annotations

import json
import random

import construction
import pytest
import tiny_data
from construction import VALIDATION, merged

from alignkit import kits, plugins, recipe
from alignkit.errors import RecipeError
from alignkit.recipe import rules, to_yaml
from alignkit.sweep import check, spec
from alignkit.train import iterate

ROOT = kits.builtin().root / "recipes"
MINI = ROOT / "overlays/mini.yaml"
FILES = [path for path in sorted(ROOT.rglob("*.yaml")) if path.parent != MINI.parent]
SWEEPS = [path for path in FILES if spec.is_sweep_file(path)]
RECIPES = [path for path in FILES if path not in SWEEPS]

# What a rule refuses and the trainer does not: it would be read by nothing, or fail
# only in a later step.
LATER = {
    *("modules", "dropout", "impossible_fields", "enough_prompts"),
    *("enough_rows", "trained_tokens", "columns_for_rewards", "one_response_each"),
    *("sampling_ranges", "best_metric_of_validation", "preference_losses"),
    *("precision_of_the_machine", "scheduler_arguments", "initial_weights"),
    *("checkpointing", "several_processes", "best_checkpoint", "validation"),
    "truncation_and_stops",
}

EVALUATED = merged(VALIDATION, {"train": {"eval_strategy": "steps", "eval_steps": 1}})


def fields(name, *values):
    return [{"train": {name: value}} for value in values]


def adapters(**settings):
    ((name, values),) = settings.items()
    return [{"model": {"lora": {"r": 2, name: value}}} for value in values]


MODELS = [{"model": {"path": "../untied"}}]
TRAINING = [
    *fields("per_device_train_batch_size", 1, 3, 4),
    *fields("gradient_accumulation_steps", 2, 3, 4),
    *fields(
        "lr_scheduler_type", "constant", "cosine", "polynomial", "cosine_with_min_lr"
    ),
    *fields("lr_scheduler_type", "warmup_stable_decay", "greedy", "inverse_sqrt"),
    *fields(
        "lr_scheduler_kwargs",
        {"min_lr": 1e-9},
        {"num_decay_steps": 1},
        {"lr_end": 1e-3},
    ),
    *fields("warmup_steps", 1, 0.5),
    *fields("save_strategy", "steps", "epoch", "best"),
    *fields("save_steps", 2, 0.5, 1.5),
    *fields("load_best_model_at_end", True),
    *fields("metric_for_best_model", "loss"),
    *fields("eval_on_start", True),
    *fields("logging_steps", 2.5),
    *fields("dataloader_prefetch_factor", 2),
    *fields("dataloader_persistent_workers", True),
    *fields("fp16", True),
    *fields("bf16", True),
    *fields("fsdp", "full_shard"),
    *fields("optim", "sgd", "adafactor"),
    *fields("adam_beta1", 1.0),
    *fields("gradient_checkpointing", True),
    *fields("gradient_checkpointing_kwargs", {"selective": True}),
    *fields("torch_empty_cache_steps", 0, 1),
    *fields("router_aux_loss_coef", 0.1, 0.0),
    *fields("pad_to_multiple_of", 8, "x", "auto"),
    EVALUATED,
    *(merged(EVALUATED, change) for change in fields("eval_steps", 2, 0.5)),
    merged(EVALUATED, {"train": {"eval_strategy": "epoch"}}),
]
ADAPTED = [
    *adapters(
        target_modules=[
            "all-linear",
            ["q_proj"],
            ["lm_head"],
            ["embed_tokens"],
            ["nope"],
        ]
    ),
    *adapters(modules_to_save=[["lm_head"], ["embed_tokens"]]),
    *adapters(trainable_token_indices=[[0], [99], {"lm_head": [0]}]),
    *adapters(ensure_weight_tying=[True]),
    *adapters(rank_pattern=[{"q_proj": 4}, {"q_proj": 0}]),
    *adapters(layers_to_transform=[[0]]),
    *adapters(layers_pattern=["layers"]),
    *adapters(bias=["all"]),
    *adapters(use_dora=[True]),
    *adapters(lora_bias=[True]),
    *adapters(init_lora_weights=["gaussian", "orthogonal", "olora"]),
    *adapters(r=[0, 3]),
]
ROLLOUTS = [
    *fields("num_generations", 1, 3, 4),
    *fields("num_generations_eval", 1, 3),
    *fields("steps_per_generation", 1, 2, 4),
    *fields("generation_batch_size", 4, 6),
    *fields("num_iterations", 2),
    *fields("per_device_eval_batch_size", 3, 4),
    *fields("beta", 0.0, 0.1),
    *fields("sync_ref_model", True),
    *fields("auto_find_batch_size", True),
    *fields("mask_truncated_completions", True),
    *fields("log_completions_hub_repo", "a/b"),
    {"generation": {"stop": ["</answer>"]}},
    {"generation": {"max_new_tokens": 63}},
    {"generation": {"max_new_tokens": 64}},
]
DIMENSIONS = {
    "sft": [
        *(MODELS * 4 + TRAINING + ADAPTED),
        *fields("packing", True),
        *fields("packing_strategy", "wrapped", "bfd"),
        *fields("padding_free", True),
        *fields("max_length", None, 8),
        *fields("eval_packing", True),
        *({"loss": {"normalize": name}} for name in ("sequence", "constant", "token")),
        *fields("neftune_noise_alpha", 5.0),
    ],
    "grpo": [
        *(MODELS * 4 + TRAINING + ADAPTED + ROLLOUTS * 2),
        *({"loss": {"normalize": name}} for name in ("sequence", "constant", "token") * 2),
        {"loss": {"name": "rloo"}},
        {"loss": {"name": "trl", "loss_type": "dr_grpo"}},
        *fields("cast_lm_head_to_fp32", True),
    ],
    "rloo": [*(MODELS * 4 + TRAINING + ADAPTED + ROLLOUTS * 2), {"loss": {"name": "rloo"}}],
    "dpo": [
        *(MODELS * 4 + TRAINING + ADAPTED),
        *({"loss": {"loss_type": name}} for name in ("hinge", "aot", "exo_pair", "robust", "ipo")),
        {"loss": {"loss_type": ["sigmoid", "sft"]}},
        *fields("loss_weights", [1.0], [1.0, 0.5]),
        *fields("f_divergence_type", "forward_kl"),
        *fields("use_weighting", True),
        *fields("label_smoothing", 0.1),
        *fields("beta", 0.0),
        *fields("sync_ref_model", True),
        *fields("precompute_ref_log_probs", True),
        {"loss": {"name": "dpo"}},
    ],
}  # fmt: skip


def drawn(method, seed):
    """Up to three changes of a method's base recipe."""
    draw = random.Random(f"{method} {seed}")
    change: dict = {}
    for one in draw.sample(DIMENSIONS[method], draw.randint(1, 3)):
        change = merged(change, one)
    return change


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    registry = plugins.load([kits.builtin()])
    return construction.Workshop(tmp_path_factory.mktemp("plan_is_run"), registry)


def sample(count):
    return [(method, seed) for method in DIMENSIONS for seed in range(count)]


def verdicts_agree(workshop, method, seed, *, steps):
    change = drawn(method, seed)
    try:
        loaded = workshop.load(method, change)
    except RecipeError:
        return  # the schema refuses it, so neither command sees it
    refused, unread = workshop.refusals(loaded), workshop.unread(loaded)
    stopped = workshop.construct(loaded, steps=steps)
    if not refused and not unread:
        assert stopped is None, json.dumps(change)
    elif stopped is None and not unread:
        facts = workshop.facts(loaded)
        broken = {
            rule.__name__ for rule in rules.RULES if [*rule(loaded.config, facts)]
        }
        assert broken & LATER, (json.dumps(change), refused)


@pytest.mark.parametrize(("method", "seed"), sample(12))
def test_what_is_planned_can_be_constructed(workshop, method, seed):
    verdicts_agree(workshop, method, seed, steps=False)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "seed"), [(m, 100 + s) for m, s in sample(40)])
def test_what_is_planned_can_be_constructed_at_large(workshop, method, seed):
    verdicts_agree(workshop, method, seed, steps=False)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "seed"), [(m, 1000 + s) for m, s in sample(15)])
def test_what_is_planned_takes_its_step_and_saves(workshop, method, seed):
    verdicts_agree(workshop, method, seed, steps=True)


# -- the recipes and ablations that come along, in miniature ---------------------------


@pytest.fixture(scope="module")
def _data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tiny_data.write(tmp_path_factory.mktemp("data"))
        patch.setenv("ALIGN_DATA", str(folder))
        yield


def trained(loaded, folder):
    """Each training of a recipe, as a recipe of its own: stages, and the SFT of an
    iteration.
    """
    build = recipe.load(MINI.parent.parent / "sft_math.yaml", [MINI]).resolved["model"]
    for name, stage in (loaded.stages or {loaded.config.name: loaded}).items():
        resolved = json.loads(json.dumps(stage.resolved)) | {"name": name}
        if resolved["model"].get("path", "").startswith("stage:"):
            resolved["model"] = build | resolved["model"]
            del resolved["model"]["path"]
        if stage.config.method == "expert_iteration":
            home = folder / name
            home.mkdir()
            row = {"prompt": "1+1=?", "response": "2"}
            (home / "train.jsonl").write_text(json.dumps(row), encoding="utf-8")
            resolved = iterate._sft(stage, home, 1, "", 1) | {"model": build}
        yield resolved


def agrees(workshop, loaded, folder):
    for number, resolved in enumerate(trained(loaded, folder)):
        path = folder / f"{number}.yaml"
        path.write_text(to_yaml(resolved), encoding="utf-8")
        again = recipe.load(path, registry=workshop.registry)
        assert workshop.refusals(again) == []
        assert workshop.construct(again) is None


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_in_miniature_is_planned_and_constructed(
    workshop, tmp_path, path, _data
):
    agrees(workshop, recipe.load(path, [MINI], registry=workshop.registry), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_variant_in_miniature_is_planned_and_constructed(
    workshop, tmp_path, path, _data
):
    read = spec.read(path, seeds=None, overlays=[MINI], sets=())
    for variant in check.check_sweep(read, workshop.registry).variants:
        folder = tmp_path / variant.label
        folder.mkdir()
        agrees(workshop, next(iter(variant.recipes.values())), folder)
