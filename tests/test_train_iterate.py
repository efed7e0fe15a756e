"""Expert iteration: what its recipe may say, what it keeps and counts."""

from __future__ import annotations

import json

import pytest

from alignkit import data, kits, plugins, recipe
from alignkit.data.datasets import Datasets
from alignkit.engines.base import Sampling
from alignkit.errors import RecipeError, WorkError
from alignkit.grading import Grader
from alignkit.run import append_jsonl, new_row, read_jsonl
from alignkit.train import children
from alignkit.train.asking import Asking, sampling_of
from alignkit.train.iterate import _sft, train_settings
from alignkit.train.rewards import bound_rewards
from alignkit.train.sampling import (
    _counts,
    _grade,
    _keep,
    questions,
    with_hint,
)
from alignkit.train.start import create_run

RECIPE = """\
method: expert_iteration
model: {path: a/b}
data: {train: {dataset: arithmetic, size: 50}, prompt: arithmetic}
rewards: {drgrpo: {}}
train: {learning_rate: 1.0e-4, max_grad_norm: 1.0}
"""


@pytest.fixture
def load(tmp_path):
    def load(section, text=RECIPE):
        path = tmp_path / "r.yaml"
        path.write_text(text + f"expert_iteration: {section}\n")
        return recipe.load(path)

    return load


def refused(load, section, text=RECIPE):
    with pytest.raises(RecipeError) as caught:
        load(section, text)
    return str(caught.value)


def test_epochs_are_stated_in_one_place_only(load):
    text = refused(
        load,
        "{questions: 4, rollouts: 2}",
        RECIPE.replace("max_grad_norm", "num_train_epochs"),
    )
    assert "train.num_train_epochs: in a recipe use expert_iteration.epochs" in text


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (
            "{12: {learning_rat: 1}}",
            (
                "12.learning_rat: TRL's SFTConfig has no such field; did you mean"
                " 'learning_rate'?"
            ),
        ),
        (
            "{12: {num_train_epochs: 2}}",
            "12.num_train_epochs: in a recipe use expert_iteration.epochs",
        ),
        (
            "{12: {learning_rate: fast}}",
            "12.learning_rate: given 'fast' (text), expected a number",
        ),
        ("{few: {}}", "few: given 'few' (text), expected text of the form"),
        ("{0: {}}", "0: given '0' (text), expected text of the form"),
        ("{12: 3}", "12: given 3, expected a map"),
    ],
)
def test_settings_by_what_is_kept_are_checked_as_train_is(load, stated, text):
    assert f"expert_iteration.train_by_kept.{text}" in refused(
        load, f"{{questions: 4, rollouts: 2, train_by_kept: {stated}}}"
    )


def test_the_smallest_number_that_is_not_exceeded_decides(load):
    by_kept = (
        "{100: {learning_rate: 2.0}, 20: {learning_rate: 3.0, max_grad_norm: 0.5}}"
    )
    config = load(
        f"{{questions: 4, rollouts: 2, epochs: 3, train_by_kept: {by_kept}}}"
    ).config
    assert train_settings(config, 20) == {
        "learning_rate": 3.0,
        "max_grad_norm": 0.5,
        "num_train_epochs": 3,
    }
    assert train_settings(config, 21) == {
        "learning_rate": 2.0,
        "max_grad_norm": 1.0,
        "num_train_epochs": 3,
    }
    assert train_settings(config, 101) == {
        "learning_rate": 1e-4,
        "max_grad_norm": 1.0,
        "num_train_epochs": 3,
    }


def test_a_resolved_recipe_with_such_settings_loads_again(load, tmp_path):
    first = load(
        "{questions: 4, rollouts: 2, train_by_kept: {12: {learning_rate: 1.0e-5}}}"
    )
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(first.resolved))
    assert recipe.load(tmp_path / "again.yaml").resolved == first.resolved


def test_rollouts_carry_log_probs_and_each_iteration_has_a_seed_of_its_own(load):
    config = load("{questions: 4, rollouts: 2}").config
    first, second = (sampling_of(config, iteration) for iteration in (1, 2))
    assert first.logprobs and first.n == 2 and first.seed != second.seed


def test_questions_are_drawn_anew_for_each_iteration_and_alike_for_each_run(load):
    registry = plugins.load([kits.builtin()])
    config = load("{questions: 20, rollouts: 2}").config
    asked = [
        json.dumps(questions(config, registry, iteration)) for iteration in (1, 2, 1)
    ]
    assert asked[0] == asked[2] != asked[1]


def row(question, response, correct, surprise=0.5):
    return new_row(
        {
            "group": question,
            "response": response,
            "reward": float(correct),
            "tokens": len(response),
            "mean_logprob": None if surprise is None else -surprise,
            "status": "ok" if correct else "wrong",
        }
    )


ROWS = [
    row(0, "a", True),
    row(0, "bb", True),
    row(0, "a", True),
    row(1, "ccc", False),
    row(2, "a", True, None),
]


def test_correct_answers_are_kept_once_all_or_one_for_each_question():
    assert [(r["group"], r["response"]) for r in _keep(ROWS, "all")] == [
        (0, "a"),
        (0, "bb"),
        (2, "a"),
    ]
    assert [(r["group"], r["response"]) for r in _keep(ROWS, "single")] == [
        (0, "a"),
        (2, "a"),
    ]


def test_an_empty_response_is_not_kept():
    assert [
        r["response"] for r in _keep([row(0, "", True), row(0, "a", True)], "single")
    ] == ["a"]


def test_what_is_kept_is_counted():
    counts = _counts(ROWS, _keep(ROWS, "all"), 4)
    assert (
        counts["ei/kept"],
        counts["ei/fraction_kept"],
        counts["ei/fraction_correct"],
    ) == (3, 0.6, 0.8)
    assert counts["ei/fraction_solved"] == 0.5 and counts["ei/entropy"] == 0.5
    assert (
        counts["ei/response_length_correct"],
        counts["ei/response_length_wrong"],
    ) == (1.25, 3.0)
    assert counts["ei/status/wrong"] == 0.2


@pytest.mark.parametrize(
    ("prompt", "row"),
    [
        ({"template": "Q: {question}"}, {"question": "1+1", "truth": "2"}),
        ({"template": "Q: {question}"}, {"problem": "1+1", "truth": "2"}),
        (None, {"prompt": "1+1", "truth": "2"}),
    ],
)
def test_a_hint_is_in_view_whichever_column_holds_the_question(prompt, row):
    template = data.load_prompt(prompt, plugins.load([kits.builtin()]))
    assert "The answer is 2" in data.render(template, with_hint(row))
    assert "The answer" not in data.render(template, row)


CRASHING = """\
from alignkit import Reward, hookimpl


def crashing(response: str) -> float:
    return 1.0 / (len(response) - 1)


@hookimpl
def align_rewards():
    yield Reward("crashing", crashing)
"""


@pytest.fixture
def crashing(tmp_path):
    """A registry with a reward that fails on responses of one character."""
    (tmp_path / "kit" / "rewards").mkdir(parents=True)
    (tmp_path / "kit" / "rewards" / "crashing.py").write_text(CRASHING)
    return plugins.load([kits.builtin(), kits.Kit("fragile", tmp_path / "kit")])


def test_a_reward_that_fails_stops_the_sampling_unless_the_recipe_says_zero(
    load, crashing, tmp_path
):
    rows = [
        new_row({"response": text, "truth": "", "prompt": ""}) for text in ("aaa", "b")
    ]
    home = tmp_path / "002"
    with Grader() as grader:
        config = load(
            "{questions: 4, rollouts: 2}", RECIPE.replace("drgrpo: {}", "crashing: {}")
        ).config
        with pytest.raises(
            WorkError,
            match=r"'crashing' failed in iteration 2.*\n(.*\n)*.*on_error: zero",
        ):
            _grade(config, crashing, grader, rows, home)
        assert [row["status"] for row in read_jsonl(home / "rollouts.jsonl")] == [
            "ok",
            "error",
        ]
        lenient = RECIPE.replace("drgrpo: {}", "crashing: {on_error: zero}")
        _grade(
            load("{questions: 4, rollouts: 2}", lenient).config,
            crashing,
            grader,
            rows,
            home,
        )
    assert [(row["status"], row["reward"]) for row in rows] == [
        ("ok", 0.5),
        ("error", 0.0),
    ]
    assert "ZeroDivisionError" in rows[1]["explanation"]


def test_rewards_have_the_deadline_of_the_recipe(load):
    config = load(
        "{questions: 4, rollouts: 2}",
        RECIPE.replace("drgrpo: {}", "drgrpo: {deadline: 0.5}"),
    ).config
    assert (
        bound_rewards(config, plugins.load([kits.builtin()]))["drgrpo"].deadline == 0.5
    )


def test_stored_rollouts_stay_with_their_question_when_others_are_asked_again(tmp_path):
    old = {"sample": 0, "surprise": None, "correct": True}  # as 0.1 wrote it
    append_jsonl(
        tmp_path / "hinted.jsonl",
        [{**old, "question": q, "response": f"to {q}"} for q in (1, 2)],
    )
    ask = Asking(None, Sampling(n=1), 1, [], None)
    rows = ask.rollouts([2], ["?"], [{}], tmp_path / "hinted.jsonl")
    assert [row["response"] for row in rows] == ["to 2"]


def test_the_start_is_loaded_at_its_revision_and_a_trained_model_is_not(load, tmp_path):
    found = load(
        "{questions: 4, rollouts: 2}",
        RECIPE.replace("{path: a/b}", "{path: a/b, revision: v2}"),
    )
    assert _sft(found, tmp_path, 1, "a/b", 4)["model"]["revision"] == "v2"
    assert "revision" not in _sft(found, tmp_path, 2, "/made", 4)["model"]


def test_an_eval_that_is_not_wanted_after_training_runs_after_no_iteration(
    load, tmp_path
):
    stated = "evals: {arithmetic: {before: true, after: false}, gsm8k: {}}\n"
    evals = _sft(
        load("{questions: 4, rollouts: 2}", RECIPE + stated), tmp_path, 1, "a/b", 4
    )["evals"]
    assert {name: (e["before"], e.get("after", True)) for name, e in evals.items()} == {
        "arithmetic": (False, False),
        "gsm8k": (False, True),
    }


@pytest.mark.parametrize(
    ("stated", "text"),
    [
        (
            "best: {metric: eval/math/accuracy}",
            "best: method expert_iteration has no use for it",
        ),
        (
            "generation: {vllm: {sleep: true}}",
            "generation.vllm.sleep: method expert_iteration has no use",
        ),
        (
            "generation: {vllm: {mode: server, server: 'http://h/v1'}}",
            "vllm.mode: method expert_iteration has no use",
        ),
    ],
)
def test_what_expert_iteration_would_not_read_is_refused(load, stated, text):
    assert text in refused(load, "{questions: 4, rollouts: 2}", f"{RECIPE}{stated}\n")


@pytest.mark.slow
def test_the_log_says_why_the_sampling_failed(load, tmp_path):
    registry = plugins.load([kits.builtin()])
    made = create_run(
        load("{questions: 4, rollouts: 2}"),
        registry,
        Datasets(registry),
        folder=tmp_path / "run",
    )
    arguments = [
        "_sample",
        str(made.folder),
        "--iteration",
        "1",
        "--model",
        str(tmp_path / "nowhere"),
    ]
    with pytest.raises(WorkError, match=r"log\.txt"):
        children.child(
            arguments, registry, "sampling", made.folder / "log.txt", made.folder
        )
    assert "nowhere" in (made.folder / "log.txt").read_text()
