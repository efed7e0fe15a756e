"""What a sweep is read as, and everything that is refused before the first run starts."""

from __future__ import annotations

import pytest

from alignkit import kits, plugins
from alignkit.errors import InputError, RecipeError
from alignkit.sweep import check, spec


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture
def checked(sweep_file, registry):
    def run(text, seeds=None, overlays=(), sets=()):
        return check.check_sweep(
            spec.read(sweep_file(text), seeds=seeds, overlays=overlays, sets=sets),
            registry,
        )

    return run


def test_variants_are_diffs_of_the_base_for_every_seed(checked):
    found = checked(
        "variants:\n  a: {}\n  b: {loss: {normalize: constant, constant: 8}}\nseeds:"
        " [3, 4]\n"
    )
    assert [variant.label for variant in found.variants] == ["a", "b"]
    assert {d.key: d.b for d in found.variants[1].differences} == {
        "loss.normalize": "constant",
        "loss.constant": 8,
    }
    recipes = found.variants[1].recipes
    assert {seed: recipe.config.seed for seed, recipe in recipes.items()} == {
        3: 3,
        4: 4,
    }
    assert {recipe.config.name for recipe in recipes.values()} == {"sweep-b"}


def test_a_difference_knows_its_place_in_the_sweep_file(checked):
    found = checked("variants:\n  a:\n  b: {loss: {normalize: token}}\n")
    assert str(found.variants[1].differences[0].b_origin).endswith("sweep.yaml:4:14")


def test_the_base_comes_first_wherever_it_stands(checked):
    found = checked("variants:\n  b: {loss: {normalize: token}}\n  a: {}\n")
    assert [variant.label for variant in found.variants] == ["a", "b"]


def test_without_seeds_the_base_gives_its_own(checked):
    assert list(
        checked("variants: {a: {}, b: {loss: {normalize: token}}}").variants[0].recipes
    ) == [0]


def test_seeds_of_the_command_line_replace_those_of_the_file(checked):
    found = checked(
        "variants: {a: {}, b: {loss: {normalize: token}}}\nseeds: [1]\n", seeds=[5, 6]
    )
    assert list(found.variants[0].recipes) == [5, 6]


def test_an_overlay_changes_the_base_and_the_variant_wins(checked, tmp_path):
    overlay = tmp_path / "over.yaml"
    overlay.write_text("train: {learning_rate: 0.5, max_steps: 2}\n")
    found = checked(
        "variants: {a: {}, b: {train: {learning_rate: 0.25}}}", overlays=[overlay]
    )
    rates = [
        variant.recipes[0].config.train["learning_rate"] for variant in found.variants
    ]
    assert rates == [0.5, 0.25] and {variant.steps for variant in found.variants} == {2}


def test_a_grid_is_every_combination(checked):
    found = checked(
        "grid:\n  train.learning_rate: [1e-4, 1e-5]\n  loss.normalize: [sequence,"
        " token]\n"
    )
    assert [variant.label for variant in found.variants] == [
        "learning_rate=0.0001,normalize=sequence",
        "learning_rate=0.0001,normalize=token",
        "learning_rate=1e-05,normalize=sequence",
        "learning_rate=1e-05,normalize=token",
    ]
    assert not found.variants[0].differences


def test_set_with_several_values_is_a_grid_and_with_one_a_fixed_change(tiny, registry):
    sets = [
        "train.learning_rate=1e-6,1e-5",
        'generation.stop=["a,b", "c"]',
        "train.max_steps=3",
    ]
    found = check.check_sweep(
        spec.from_recipe(tiny, seeds=[0, 1], overlays=(), sets=sets), registry
    )
    assert [v.label for v in found.variants] == [
        "learning_rate=1e-06",
        "learning_rate=1e-05",
    ]
    config = found.variants[1].recipes[1].config
    assert (config.train["learning_rate"], config.train["max_steps"]) == (1e-5, 3)
    assert config.generation.stop == ["a,b", "c"]


def test_the_metric_is_the_evals_own_unless_one_is_stated(checked):
    variants = "variants: {a: {}, b: {loss: {normalize: token}}}\n"
    assert checked(variants).metric == "eval/arithmetic/accuracy"
    assert checked(variants + "metric: train/entropy\n").metric == "train/entropy"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variants: {}", "the sweep is empty"),
        ("grid: {}", "the sweep is empty"),
        (
            "grid: {train.learning_rate: [1.0e-6, 0.000001]}",
            "two variants would be called learning_rate=1e-06",
        ),
        ("seeds: [0]", "either variants or grid"),
        ("variants: {a: {}}", "nothing to compare"),
        ("variants: {a: {}, b: {}}", "variant b changes nothing, as a already does"),
        (
            "variants: {a: {}, b: {description: x}}",
            "variant b changes nothing, as a already does",
        ),
        (
            "variants: {a: {}, b: {seed: 3}}",
            "the sweep itself gives every run its seed",
        ),
        ("variants: {a/b: {loss: {normalize: token}}}", "name may hold"),
        (
            "variants: {a: {}, b: {loss: {normalize: token}}}\nseeds: [1, 1]",
            "each seed once",
        ),
        (
            "variants: {a: {}, b: {loss: {normalize: token}}}\nseeds: 3",
            "sweep.yaml:3:1: seeds: given 3",
        ),
        (
            "variants: {a: {}, b: {loss: {normalize: token}}}\nsedes: [1]",
            "did you mean 'seeds'",
        ),
        (
            (
                "variants: {a: {}, b: {loss: {normalize: token}}}\nstop: [{metric:"
                " train/entropy}]"
            ),
            "either below or above",
        ),
        (
            (
                "variants: {a: {}, b: {loss: {normalize: token}}}\nstop: [{metric:"
                " train/entopy, below: 1}]"
            ),
            "'train/entopy' is unknown; known: .*train/entropy",
        ),
        (
            "variants: {a: {}, b: {loss: {normalize: token}}}\nmetric: eval/math/acc",
            "'eval/math/acc' is unknown; known: eval/arithmetic/accuracy, train/reward",
        ),
        (
            "variants: {a: {}, b: {train: {max_steps: 9}}}\nbudget: {equal: steps}",
            "it sets train.max_steps, while the budget",
        ),
        (
            (
                "variants: {a: {}, b: {train: {lr_scheduler_type: linear}}}\nbudget:"
                " {equal: tokens}"
            ),
            "lr_scheduler_type is linear",
        ),
        (
            "variants: {b: {loss: {normalize: token}}}\nbudget: {equal: seconds}",
            "it must be a variant",
        ),
    ],
)
def test_wrong_input_is_refused_with_the_reason(checked, text, said):
    with pytest.raises(InputError, match=said):
        checked(text)


def test_a_missing_base_names_the_nearest_file(tmp_path, tiny):
    path = tmp_path / "sweep.yaml"
    path.write_text("base: tny.yaml\nvariants: {a: {}}\n")
    with pytest.raises(
        RecipeError,
        match=(
            r"sweep.yaml:1:1: base: there is no file tny.yaml; did you mean 'tiny.yaml'"
        ),
    ):
        spec.read(path, seeds=None, overlays=(), sets=())


def test_every_invalid_variant_is_reported_at_once(checked):
    text = """\
variants:
  a: {}
  b: {loss: {normalize: constnt}}
  c: {train: {learning_rat: 1}}
  d: {train: {num_generations: 3}}
  e: {loss: {normalize: token}}
  f: {loss: {normalize: token}}
"""
    with pytest.raises(InputError) as caught:
        checked(text)
    said = "\n".join(caught.value.problems)
    assert "variant b: " in said and "did you mean 'constant'" in said
    assert "variant c: " in said and "did you mean 'learning_rate'" in said
    assert "variant d: " in said and "not divisible by num_generations (3)" in said
    assert "variants e and f are equal" in said and "nothing was started" in said


def test_nothing_that_varies_is_an_empty_sweep(tiny):
    with pytest.raises(InputError, match="the sweep is empty"):
        spec.from_recipe(tiny, seeds=None, overlays=(), sets=["train.max_steps=3"])


def test_equal_steps_give_every_variant_the_steps_of_the_base(checked):
    text = "variants: {a: {}, b: {train: {num_train_epochs: 9.0, max_steps: ~}}}\n"
    with pytest.raises(InputError, match="while the budget"):
        checked(text + "budget: {equal: steps}\n")
    assert [v.steps for v in checked(text).variants] != [4, 4]


def test_equal_tokens_leave_the_others_room_for_more_steps_than_the_base(checked):
    found = checked(
        "variants: {a: {}, b: {generation: {max_new_tokens: 4}}}\nbudget: {equal:"
        " tokens}\n"
    )
    assert [variant.steps for variant in found.variants] == [4, 16]
    assert found.variants[1].recipes[0].config.train["max_steps"] == 16
    assert [d.key for d in found.variants[1].differences] == [
        "generation.max_new_tokens"
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{check: colapse}", "check 'colapse' is unknown; known: "),
        ("{check: overfit}", "check 'overfit' is unknown"),
        ("{check: collapse, below: 1}", "needs no bound"),
        ("{below: 1.0}", "either metric or check"),
        ("{metric: train/entropy, check: collapse}", "either metric or check"),
    ],
)
def test_a_rule_names_a_metric_with_a_bound_or_a_check(checked, rule, message):
    with pytest.raises(InputError, match=message):
        checked(
            "variants: {a: {}, b: {seed: ~, train: {max_steps: 3}}}\nstop: ["
            + rule
            + "]\n"
        )


def test_a_rule_is_broken_only_by_as_many_values_in_a_row_as_it_says():
    rule = spec.Rule(metric="train/entropy", below=0.5, logs=3)
    assert not rule.broken_by([0.1, 0.1])
    assert not rule.broken_by([0.1, 0.9, 0.1, 0.1])
    assert rule.broken_by([0.9, 0.1, 0.1, 0.1])
    assert spec.Rule(metric="train/grad_norm", above=10.0).broken_by([0.1, 11.0])
    assert spec.Rule(metric="train/grad_norm", above=10.0).broken_by(
        [0.1, float("nan")]
    )
