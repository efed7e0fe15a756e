"""What is compared, what is refused, and what the numbers of a comparison are."""

from __future__ import annotations

import json

import pytest

from alignkit.errors import InputError
from alignkit.report.collect import collect
from alignkit.report.comparability import MEASURED_BY
from alignkit.report.comparison import compare

METRIC = "eval/math/accuracy"


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_seeds_of_one_recipe_are_one_row_and_columns_are_what_differs(make):
    found = compare(collect(make.ablation()))
    assert [(row.label, row.base, row.seeds) for row in found.rows] == [
        ("sequence", True, [0, 1, 2]),
        ("constant", False, [0, 1, 2]),
        ("microbatch", False, [0, 1, 2]),
    ]
    assert found.columns == ["loss.constant", "loss.normalize"]
    assert found.rows[0].differs == {"loss.normalize": "sequence"}
    assert found.rows[1].differs == {
        "loss.constant": 1024,
        "loss.normalize": "constant",
    }


def test_a_real_effect_is_found_and_an_absent_one_is_not(make):
    rows = compare(collect(make.ablation()), [METRIC]).rows
    assert [row.results[METRIC].verdict for row in rows] == [
        "",
        "higher",
        "no difference shown",
    ]


def test_values_are_the_means_of_the_last_evals(make):
    runs = make.ablation(seeds=(0, 1))
    result = compare(collect(runs), [METRIC]).rows[0].results[METRIC]
    summaries = [
        json.loads((run / "evals/math@20/summary.json").read_text())["value"]
        for run in runs[:2]
    ]
    assert list(result.by_seed.values()) == pytest.approx(summaries)
    assert result.value == pytest.approx(sum(summaries) / 2)
    assert result.interval.covers == "seeds" and result.questions == 150


def test_holm_is_over_all_variants_and_metrics(make):
    found = compare(collect(make.ablation(seeds=(0,))), [METRIC, "eval/math/unparsed"])
    results = [row.results[METRIC] for row in found.rows[1:]]
    raw, corrected = [r.difference.p for r in results], [r.p_holm for r in results]
    assert corrected == pytest.approx(
        [min(1.0, 2 * min(raw)) if p == min(raw) else p for p in raw]
    )


def test_the_base_can_be_named_by_label_or_run(make):
    runs = make.ablation(seeds=(0,))
    assert compare(collect(runs, base="constant")).base == "constant"
    assert compare(collect(runs, base=str(runs[2]))).base == "microbatch"
    with pytest.raises(
        InputError, match="no variant 'contant'; did you mean 'constant'"
    ):
        collect(runs, base="contant")


@pytest.mark.parametrize("field", MEASURED_BY)
def test_evals_that_differ_in_one_field_of_provenance_are_refused_with_the_field_named(
    make, field
):
    runs = [make.run("a"), make.run("b", recipe={"x": 1}, provenance={field: "other"})]
    with pytest.raises(
        InputError, match=f"measured differently in its {field}: .*other"
    ) as caught:
        compare(collect(runs))
    assert all(
        f"in its {other}:" not in str(caught.value)
        for other in MEASURED_BY
        if other != field
    )
    forced = compare(collect(runs), force=True)
    assert len(forced.forced) == 1 and field in forced.forced[0]


def test_every_field_that_differs_is_named_at_once(make):
    runs = [
        make.run("a"),
        make.run("b", recipe={"x": 1}, provenance={"prompt": "p2", "judge": "llama"}),
    ]
    with pytest.raises(InputError) as caught:
        compare(collect(runs))
    assert "in its prompt" in str(caught.value) and "in its judge" in str(caught.value)


def test_another_seed_of_the_sampling_or_place_of_the_data_is_no_reason_to_refuse(make):
    one = {
        "sampling": {"temperature": 1.0, "seed": 0},
        "data": {"path": "/a", "sha256": "x"},
    }
    two = {
        "sampling": {"temperature": 1.0, "seed": 1},
        "data": {"path": "/b", "sha256": "x"},
    }
    assert compare(
        collect(
            [
                make.run("a", provenance=one),
                make.run("b", provenance=two, recipe={"x": 1}),
            ]
        )
    )


def test_of_a_map_only_the_part_that_differs_is_named(make):
    one, two = ({"sampling": {"temperature": t, "top_p": 1.0}} for t in (0.0, 1.0))
    runs = [
        make.run("a", provenance=one),
        make.run("b", provenance=two, recipe={"x": 1}),
    ]
    with pytest.raises(
        InputError,
        match=r"in its sampling: temperature 0.0 in a-s0; temperature 1.0 in b-s0",
    ):
        compare(collect(runs))


def test_questions_without_a_verdict_are_left_out_of_all_variants(make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1})]
    path = runs[1] / "evals/math@20/samples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"reward": None, "status": "open"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(
        path.with_name("summary.json"),
        value=sum(row["reward"] for row in rows[1:]) / 149,
    )
    edit(path.with_name("summary.json"), metrics={})
    found = compare(collect(runs), [METRIC])
    assert [row.results[METRIC].questions for row in found.rows] == [149, 149]


def test_a_pipeline_stands_for_the_model_of_its_last_stage(make):
    def pipeline(name, accuracy, changed):
        folder = make.run(
            name, recipe={"method": "pipeline", "stages": {"sft": {}, "grpo": changed}}
        )
        make.root = folder / "stages"
        for stage, value in (("sft", 0.2), ("grpo", accuracy)):
            made = make.run(stage, accuracy=value)
            made.rename(made.with_name(stage))
        make.root = folder.parent
        return folder

    runs = [pipeline("a", 0.3, {}), pipeline("b", 0.9, {"x": 1})]
    found = compare(collect(runs), [METRIC])
    summary = json.loads(
        (runs[1] / "stages/grpo/evals/math@20/summary.json").read_text()
    )
    assert found.rows[1].results[METRIC].value == pytest.approx(summary["value"])
    assert list(found.columns) == ["stages.grpo", "stages.grpo.x"]


def test_another_engine_is_no_reason_to_refuse(make):
    assert compare(
        collect(
            [
                make.run("a"),
                make.run("b", recipe={"x": 1}, provenance={"engine": "vllm"}),
            ]
        )
    )


def test_an_unknown_metric_lists_the_known_ones(make):
    runs = make.ablation(seeds=(0,))
    with pytest.raises(
        InputError, match=r"did you mean 'eval/math/accuracy'.*train/entropy"
    ):
        compare(collect(runs), ["eval/math/acuracy"])
    with pytest.raises(InputError, match=r"known: eval/math/accuracy, .*train/reward"):
        compare(collect(runs), ["zzz"])


def test_a_metric_that_only_some_runs_have_names_the_others(make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1})]
    make.eval(runs[0], 20, 0.5, name="gsm8k")
    with pytest.raises(InputError, match=r"eval/gsm8k/accuracy is not in .*b-s0"):
        compare(collect(runs), ["eval/gsm8k/accuracy"])


def test_no_common_questions_is_an_error(make):
    runs = [
        make.run("a", ids=["q1", "q2"]),
        make.run("b", ids=["q3", "q4"], recipe={"x": 1}),
    ]
    with pytest.raises(InputError, match="no common questions"):
        compare(collect(runs))


def test_only_common_questions_count_and_the_table_says_so(make):
    runs = [make.run("a", questions=100), make.run("b", questions=150, recipe={"x": 1})]
    found = compare(collect(runs), [METRIC])
    assert [row.results[METRIC].questions for row in found.rows] == [100, 100]
    assert any(
        "over the 100 questions that all runs answered, of 150" in note
        for note in found.notes
    )


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_unfinished_runs_are_named_and_left_out_only_when_allowed(make, status):
    runs = [
        make.run("a"),
        make.run("b", recipe={"x": 1}),
        make.run("c", status=status, recipe={"x": 2}),
    ]
    with pytest.raises(
        InputError,
        match=rf"c-s0 is not finished: its status is '{status}'[\s\S]*--allow-missing",
    ):
        collect(runs)
    found = compare(collect(runs, allow_missing=True))
    assert [row.label for row in found.rows] == ["a", "b"]
    assert len(found.left_out) == 1 and "c-s0" in found.left_out[0]


def damage(folder, how):
    summary, samples = (
        folder / "evals/math@20/summary.json",
        folder / "evals/math@20/samples.jsonl",
    )
    if how in ("manifest.json", "recipe.yaml"):
        (folder / how).unlink()
    elif how == "manifest":
        (folder / "manifest.json").write_text('{"status": "do')
    elif how == "recipe":
        (folder / "recipe.yaml").write_text("a: [1")
    elif how == "metrics":
        text = (folder / "metrics.jsonl").read_text()
        (folder / "metrics.jsonl").write_text("{broken\n" + text)
    elif how == "summary":
        summary.write_text("{}")
    elif how == "nan":
        edit(summary, value=float("nan"))
    elif how == "lost":
        samples.unlink()
    elif how == "short":
        samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-3]))


@pytest.mark.parametrize(
    "how",
    [
        "manifest.json",
        "recipe.yaml",
        "manifest",
        "recipe",
        "metrics",
        "summary",
        "nan",
        "lost",
        "short",
    ],
)
def test_damaged_runs_are_named_and_left_out_only_when_allowed(make, how):
    runs = [
        make.run("a"),
        make.run("b", recipe={"x": 1}),
        make.run("c", recipe={"x": 2}),
    ]
    damage(runs[2], how)
    with pytest.raises(InputError, match="c-s0"):
        compare(collect(runs))
    assert [row.label for row in compare(collect(runs, allow_missing=True)).rows] == [
        "a",
        "b",
    ]


def test_all_unusable_runs_are_reported_at_once(make, tmp_path):
    runs = [
        make.run("a", status="failed"),
        tmp_path / "nowhere",
        make.run("b", status="running"),
    ]
    with pytest.raises(InputError) as caught:
        collect(runs)
    assert all(name in str(caught.value) for name in ("a-s0", "nowhere", "b-s0"))
    with pytest.raises(InputError, match="no finished run"):
        collect(runs, allow_missing=True)


def test_the_same_recipe_and_seed_twice_is_refused(make):
    one, two = make.run("a"), make.run("again")
    with pytest.raises(InputError, match="same recipe and seed"):
        collect([one, two])


def test_variants_of_one_name_are_told_apart_by_what_differs(make):
    other = make.run("b", recipe={"train": {"learning_rate": 1e-5}})
    one = make.run("a", recipe={"train": {"learning_rate": 1e-6}})
    (other / "recipe.yaml").write_text(
        (other / "recipe.yaml").read_text().replace('"b"', '"a"')
    )
    labels = [row.label for row in compare(collect([one, other])).rows]
    assert labels == ["a learning_rate=1e-06", "a learning_rate=1e-05"]


def test_training_metrics_are_compared_over_seeds(make):
    rows = compare(collect(make.ablation()), ["train/reward"]).rows
    assert rows[1].results["train/reward"].questions is None
    assert rows[1].results["train/reward"].difference.test == "Welch's t"
    assert rows[1].results["train/reward"].verdict == "higher"


def test_a_training_metric_of_one_seed_is_left_untested(make):
    rows = compare(collect(make.ablation(seeds=(0,))), ["train/reward"]).rows
    assert [row.results["train/reward"].verdict for row in rows[1:]] == [
        "untested",
        "untested",
    ]


def test_one_seed_says_that_it_is_about_these_models(make):
    notes = compare(collect(make.ablation(seeds=(0,)))).notes
    assert any("McNemar exact, over questions" in note for note in notes)
    assert any("these very models" in note for note in notes)


def test_other_versions_are_noted(make):
    runs = [
        make.run("a"),
        make.run("b", recipe={"x": 1}, manifest={"versions": {"trl": "1.17.0"}}),
    ]
    assert any(
        "differ in their versions" in note for note in compare(collect(runs)).notes
    )


def test_a_sweep_gives_labels_base_metric_and_what_is_missing(make):
    runs = make.ablation(seeds=(0,))
    jobs = [
        {"variant": f"v{i}", "seed": 0, "status": "done", "run": str(run)}
        for i, run in enumerate(runs)
    ]
    sweep = make.root / "sweep"
    sweep.mkdir()
    (sweep / "sweep.json").write_text(
        json.dumps({"base": "v1", "metric": METRIC, "jobs": jobs})
    )
    found = compare(collect([sweep]))
    assert ([row.label for row in found.rows], list(found.metrics)) == (
        ["v1", "v0", "v2"],
        [METRIC],
    )
    jobs.append({"variant": "v3", "seed": 0, "status": "failed", "run": None})
    edit(sweep / "sweep.json", jobs=jobs)
    with pytest.raises(InputError, match="variant v3, seed 0 is failed"):
        collect([sweep])


def sweep_of(make, name, runs, **more):
    folder = make.root / name
    folder.mkdir()
    jobs = [
        {"variant": label, "seed": 0, "status": "done", "run": str(run), "note": ""}
        for label, run in runs
    ]
    state = {"base": runs[0][0], "metric": METRIC, "jobs": jobs, **more}
    (folder / "sweep.json").write_text(json.dumps(state))
    return folder


def test_a_sweep_beside_a_run_of_its_own_counts_that_run_once(make):
    a, b = make.run("a"), make.run("b", recipe={"x": 1})
    sweep = sweep_of(make, "one", [("base", a), ("std", b)])
    assert [(row.label, row.seeds) for row in compare(collect([sweep, a])).rows] == [
        ("base", [0]),
        ("std", [0]),
    ]


def test_variants_of_two_sweeps_with_one_label_but_other_recipes_are_kept_apart(make):
    runs = [make.run("a"), make.run("b", 1, recipe={"train": {"learning_rate": 1e-6}})]
    sweeps = [
        sweep_of(make, f"sweep{i}", [("base", run)]) for i, run in enumerate(runs)
    ]
    found = compare(collect(sweeps))
    assert [(row.label, row.seeds) for row in found.rows] == [
        ("base", [0]),
        ("base learning_rate=1e-06", [1]),
    ]
    assert not any("no finished run" in note for note in found.notes)


def test_a_sweep_that_was_moved_finds_its_runs(make):
    sweep = sweep_of(
        make,
        "moved",
        [("base", "/elsewhere/runs/base-seed0"), ("b", make.run("b", recipe={"x": 1}))],
    )
    (sweep / "runs").mkdir()
    make.run("a").rename(sweep / "runs" / "base-seed0")
    assert [row.label for row in compare(collect([sweep])).rows] == ["base", "b"]


def test_where_a_run_lies_and_how_it_is_described_makes_no_variant(make):
    more = {"description": "x", "output": {"root": "elsewhere"}, "track": ["wandb"]}
    found = compare(collect([make.run("a", 0), make.run("a", 1, recipe=more)]))
    assert [row.seeds for row in found.rows] == [[0, 1]] and not found.columns


@pytest.mark.parametrize(
    "text", ["{}", "[]", "3", '{"base": "a", "metric": "m", "jobs": [{}]}', "{"]
)
def test_a_damaged_sweep_is_named(make, text):
    sweep = sweep_of(make, "broken", [("base", make.run("a"))])
    (sweep / "sweep.json").write_text(text)
    with pytest.raises(InputError, match=r"sweep.json is damaged"):
        collect([sweep])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("manifest.json", "[]"),
        ("metrics.jsonl", "[1]\n"),
        ("metrics.jsonl", '{"train/loss": 1}\n'),
        ("recipe.yaml", "method: pipeline"),
        ("evals/math@20/samples.jsonl", "[1]\n"),
    ],
)
def test_files_of_the_wrong_shape_are_named(make, file, text):
    runs = [make.run("a"), make.run("b")]
    (runs[1] / file).write_text(text)
    with pytest.raises(InputError, match="b-s0"):
        collect(runs)


@pytest.mark.parametrize("field", ["n", "metrics", "provenance", "low"])
def test_a_summary_of_the_wrong_shape_is_named(make, field):
    run = make.run("a")
    edit(run / "evals/math@20/summary.json", **{field: "x"})
    with pytest.raises(InputError, match=f"summary.json cannot be used: {field}"):
        collect([run])


def test_a_metric_that_ends_in_nan_is_not_replaced_by_what_it_was_before(make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1})]
    with (runs[1] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "train/loss": NaN}\n')
    with pytest.raises(
        InputError, match=r"train/loss is no finite number at the end of .*b-s0"
    ):
        compare(collect(runs), ["train/loss"])


def test_training_rewards_of_other_rewards_are_refused(make):
    runs = [
        make.run("a", recipe={"rewards": {"x": {}}}),
        make.run("b", recipe={"rewards": {"y": {}}}),
    ]
    with pytest.raises(
        InputError, match="train/reward was measured differently in its grader"
    ):
        compare(collect(runs), ["train/reward"])
    assert compare(collect(runs), [METRIC]).rows


def test_another_number_of_samples_for_a_question_is_another_sampling(make):
    runs = [
        make.run(name, provenance={"samples": k}, recipe={"x": k})
        for name, k in (("a", 1), ("b", 8))
    ]
    with pytest.raises(
        InputError,
        match=(
            "measured differently in its sampling: samples 1 in a-s0; samples 8 in b-s0"
        ),
    ):
        compare(collect(runs))


def test_a_metric_named_twice_is_one_column(make):
    assert compare(collect([make.run("a")]), [METRIC, METRIC]).metrics == [METRIC]


def graded(name, **parts):
    sha256 = f"2:{name}"
    return {"grader": {"name": "math", "sha256": sha256, "options": {}, "parts": parts}}


def test_two_graders_that_differ_in_a_helper_are_never_set_side_by_side(make):
    one, two = ({"evals/math.py": "0", "evals/_rules.py": h} for h in ("aa", "bb"))
    runs = [
        make.run("a", provenance=graded("x", **one)),
        make.run("b", provenance=graded("y", **two), recipe={"x": 1}),
    ]
    with pytest.raises(InputError) as caught:
        compare(collect(runs))
    said = 'in its grader: evals/_rules.py "aa" in a-s0; evals/_rules.py "bb" in b-s0'
    assert said in str(caught.value)


def test_grades_of_0_1_compare_with_each_other_and_not_with_todays(make):
    old = {"grader": {"name": "math", "sha256": "ab" * 32, "options": {}}}
    new = graded("x", **{"evals/math.py": "0"})
    same = [
        make.run("a", provenance=old),
        make.run("b", provenance=old, recipe={"x": 1}),
    ]
    assert compare(collect(same))
    with pytest.raises(InputError) as caught:
        compare(collect([same[0], make.run("c", provenance=new, recipe={"x": 1})]))
    said = (
        'in its grader: identity "of 0.1, which hashed fewer files" in a-s0; identity'
    )
    assert said in str(caught.value) and "evals/math.py" not in str(caught.value)


def begun(name, **parts):
    identity = {"version": 2, "parts": parts}
    return {"fingerprint": f"2:{name}", "identity": identity}


@pytest.mark.parametrize("kind", ["helper", "0.1", "loss"])
def test_rewards_of_other_code_are_measured_differently(make, kind):
    one = begun(
        "x", **{"reward near": {"rewards/_rules.py": "aa"}, "loss l": {"l.py": "1"}}
    )
    other = begun(
        "y", **{"reward near": {"rewards/_rules.py": "bb"}, "loss l": {"l.py": "1"}}
    )
    if kind == "0.1":
        other = {"fingerprint": "ab" * 32}
    if kind == "loss":
        parts = {**one["identity"]["parts"], "loss l": {"l.py": "2"}}
        other = begun("z", **parts)
    runs = [
        make.run("a", manifest=one),
        make.run("b", manifest=other, recipe={"x": 1}),
    ]
    if kind == "loss":
        notes = compare(collect(runs), ["train/reward"]).notes
        assert "The runs differ in their code too: loss l: l.py changed." in notes
        return
    with pytest.raises(InputError) as caught:
        compare(collect(runs), ["train/reward"])
    said = (
        "its helper rewards/_rules.py changed"
        if kind == "helper"
        else "of alignkit 0.1"
    )
    assert (
        "train/reward was measured differently in its grader by a-s0 and b-s0"
        in str(caught.value)
    )
    assert said in str(caught.value)


def labelled(path, right, wrong):
    """A sheet by which `math` was wrong on some of the 100 rows that it calls right."""
    row = {"verdicts": {"math": True}, "population": 100, "time": None}
    said = ["right"] * right + ["wrong"] * wrong
    path.write_text(
        "".join(
            json.dumps({**row, "id": str(n), "label": label}) + "\n"
            for n, label in enumerate(said)
        )
    )


@pytest.mark.parametrize("beside", ["samples", "rollouts"])
@pytest.mark.parametrize(("wrong", "words"), [(0, "exceeds"), (40, "does not exceed")])
def test_it_is_said_whether_a_gain_exceeds_the_error_of_its_grader(
    make, beside, wrong, words
):
    grader = {"grader": {"name": "math", "sha256": "1"}}
    folders = [
        make.run(name, 0, accuracy, recipe={"loss": {"name": name}}, provenance=grader)
        for name, accuracy in (("a", 0.4), ("b", 0.6))
    ]
    eval_folder = folders[1] / "evals" / "math@20"
    file = {
        "samples": eval_folder / "samples.jsonl.labels.jsonl",
        "rollouts": folders[1] / "labels.jsonl",
    }[beside]
    labelled(file, 100 - wrong, wrong)
    notes = compare(collect(folders), [METRIC]).notes
    [note] = [note for note in notes if "grader 'math'" in note]
    assert f" {words} what errors" in note and "100 labels" in note
    assert str(file) in note


@pytest.mark.parametrize("content", ["", "[]\n", '{"id": 3}\n', "\x00"])
def test_damaged_labels_cost_no_comparison(make, content):
    grader = {"grader": {"name": "math", "sha256": "1"}}
    folders = [
        make.run(name, 0, recipe={"loss": {"name": name}}, provenance=grader)
        for name in ("a", "b")
    ]
    (folders[0] / "labels.jsonl").write_text(content)
    assert compare(collect(folders), [METRIC]).rows
