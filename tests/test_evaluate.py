"""The harness: what is kept, resumed, refused, and counted; through real engines."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from servers import OpenAIServer, say

from alignkit import kits, plugins
from alignkit.benchmarks import Eval
from alignkit.endpoint.judges import JudgeClient, resolve
from alignkit.engines.base import Likelihood
from alignkit.engines.openai import OpenAIEngine
from alignkit.errors import InputError, MissingError, WorkError
from alignkit.evaluate import EvalRequest, StoredResponses, evaluate, plan_eval
from alignkit.evaluate.planning import make_sampling, spread
from alignkit.evaluate.store import Store
from alignkit.evaluate.summary import (
    breakdown,
    interval,
    majority,
    pass_at_k,
    summarize,
    tally,
)
from alignkit.grading import Grader
from alignkit.types import Sample, Score


@pytest.fixture(scope="module")
def registry():
    return plugins.load([kits.builtin()])


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1) as pool:
        yield pool


def right(body):
    """Solves `1+2+3+4=?`, always right."""
    digits = body["prompt"].split("User: ")[1].split("=")[0].split("+")
    return f"</think> <answer>{sum(map(int, digits))}</answer>"


def arithmetic(registry, responses=None, **given):
    request = EvalRequest.of(
        registry.get("eval", "arithmetic"), **{"limit": 6, **given}
    )
    return plan_eval(request, registry, responses)


def engine(server, **options):
    return OpenAIEngine("m", server.url, backoff=0.01, server="vllm", **options)


def rows_of(summary):
    return [
        json.loads(line)
        for line in (Path(summary["folder"]) / "samples.jsonl").open(encoding="utf-8")
    ]


def test_a_summary_has_interval_counts_tally_and_provenance(registry, grader, tmp_path):
    answers = itertools.cycle(["</think> <answer>-1</answer>", "no tags", None])
    with OpenAIServer(lambda body: next(answers) or right(body)) as server:
        summary = evaluate(
            arithmetic(registry),
            engine(server, concurrency=1),
            tmp_path,
            step=7,
            grader=grader,
        )
    assert (
        summary["value"] == 2 / 6
        and summary["n"] == 6
        and summary["metric"] == "accuracy"
    )
    assert 0 < summary["low"] < 2 / 6 < summary["high"] < 1
    assert summary["status"] == {"ok": 2, "unparsed": 2, "wrong": 2}
    assert summary["tally"] == {
        "format=1 answer=1": 2,
        "format=1 answer=0": 2,
        "format=0 answer=0": 2,
    }
    assert summary["folder"] == str(tmp_path / "arithmetic@7")
    assert (
        json.loads((tmp_path / "arithmetic@7" / "summary.json").read_text())["value"]
        == 2 / 6
    )
    found = summary["provenance"]
    assert (
        found["prompt"]["name"] == "arithmetic" and len(found["prompt"]["sha256"]) == 64
    )
    assert found["sampling"]["temperature"] == 0 and found["sampling"]["stop"] == [
        "</answer>"
    ]
    assert (found["engine"], found["model"], found["judge"]) == ("openai", "m", None)
    assert found["data"]["n"] == 6 and len(found["data"]["sha256"]) == 64
    assert found["grader"]["sha256"].startswith("2:")
    assert "evals/arithmetic.py" in found["grader"]["parts"]


def test_what_a_server_did_not_take_is_part_of_the_provenance(
    registry, grader, tmp_path
):
    refused = "temperature is not supported: only the default"

    def refuses(body):
        return refused if "temperature" in body else ""

    planned = arithmetic(registry)
    with OpenAIServer(right, refuses=refuses) as server:
        first = evaluate(planned, engine(server), tmp_path, grader=grader)
        # of the next call, which asks for nothing, it stays
        again = evaluate(planned, engine(server), tmp_path, grader=grader)
    notice = "temperature (0.0) is left out: the server takes its own"
    for summary in (first, again):
        assert summary["provenance"]["sampling"]["adapted"] == [notice]
    with OpenAIServer(right) as server:
        plain = evaluate(planned, engine(server), tmp_path / "b", grader=grader)
    assert "adapted" not in plain["provenance"]["sampling"]


def test_rows_have_what_the_contract_names(registry, grader, tmp_path):
    with OpenAIServer(right) as server:
        summary = evaluate(
            arithmetic(registry), engine(server), tmp_path, grader=grader
        )
    row = rows_of(summary)[0]
    names = (
        "id sample prompt response truth reward status parts stage finish_reason tokens"
        " metadata seconds"
    )
    assert set(names.split()) <= row.keys()
    assert (
        row["prompt"].endswith("<think>")
        and row["response"].endswith("</answer>")
        and row["status"] == "ok"
    )


def test_every_engine_produces_the_same_files(registry, grader, tmp_path):
    from types import SimpleNamespace

    from alignkit import models
    from alignkit.engines.transformers import TransformersEngine

    build = SimpleNamespace(tokenizer="digits", hidden_size=32, layers=1, heads=2, intermediate_size=32,
                            init_std=0.1, max_length=64)  # fmt: skip
    tiny = TransformersEngine(*models.build(build, 0), name="tiny")
    with OpenAIServer(right) as server:
        remote = evaluate(
            arithmetic(registry), engine(server), tmp_path / "a", grader=grader
        )
    local = evaluate(arithmetic(registry), tiny, tmp_path / "b", grader=grader)
    responses = StoredResponses.read(f"{remote['folder']}/samples.jsonl")
    stored = evaluate(
        arithmetic(registry, responses), None, tmp_path / "c", grader=grader
    )
    assert remote.keys() == local.keys() == stored.keys()
    assert (
        rows_of(remote)[0].keys()
        == rows_of(local)[0].keys()
        == rows_of(stored)[0].keys()
    )
    assert [r["response"] for r in rows_of(remote)] == [
        r["response"] for r in rows_of(stored)
    ]
    assert remote["value"] == stored["value"] == 1.0


def test_what_an_endpoint_failed_on_is_all_that_is_asked_again(
    registry, grader, tmp_path
):
    with OpenAIServer(right, faults=[None, None, "500"]) as server:
        failing = engine(server, concurrency=1, attempts=1)
        with pytest.raises(WorkError, match="left without an answer"):
            evaluate(arithmetic(registry), failing, tmp_path, grader=grader)
        first = len(server.served)
        summary = evaluate(arithmetic(registry), failing, tmp_path, grader=grader)
        assert (
            first >= 2
            and len(server.served) == 6
            and max(server.times_served().values()) == 1
        )
    assert summary["n"] == 6 and summary["value"] == 1.0


def test_a_second_call_generates_nothing_and_changes_no_result(
    registry, grader, tmp_path
):
    with OpenAIServer(right) as server:
        first = evaluate(arithmetic(registry), engine(server), tmp_path, grader=grader)
        before = rows_of(first)
        again = evaluate(arithmetic(registry), engine(server), tmp_path, grader=grader)
        assert len(server.served) == 6
    assert rows_of(again) == before
    assert {k: v for k, v in again.items() if k != "timings"} == {
        k: v for k, v in first.items() if k != "timings"
    }


def test_a_torn_last_line_costs_one_sample(registry, grader, tmp_path):
    with OpenAIServer(right) as server:
        done = evaluate(arithmetic(registry), engine(server), tmp_path, grader=grader)
        path = tmp_path / "arithmetic@0" / "samples.jsonl"
        path.write_bytes(path.read_bytes()[:-20])
        again = evaluate(arithmetic(registry), engine(server), tmp_path, grader=grader)
        assert len(server.served) == 7
    assert rows_of(again) == rows_of(done) and again["value"] == 1.0


def test_a_larger_limit_keeps_what_the_smaller_one_did(registry, grader, tmp_path):
    with OpenAIServer(right) as server:
        evaluate(arithmetic(registry, limit=4), engine(server), tmp_path, grader=grader)
        summary = evaluate(
            arithmetic(registry, limit=9), engine(server), tmp_path, grader=grader
        )
        assert len(server.served) == 9
        fewer = evaluate(
            arithmetic(registry, limit=2), engine(server), tmp_path, grader=grader
        )
    assert (summary["n"], fewer["n"], len(rows_of(fewer))) == (9, 2, 9)


def test_further_samples_of_a_question_are_drawn_with_another_seed(
    registry, grader, tmp_path
):
    with OpenAIServer(right) as server:
        sampling = {"temperature": 1.0}
        evaluate(
            arithmetic(registry, samples=2, sampling=sampling, limit=1),
            engine(server),
            tmp_path,
            grader=grader,
        )
        summary = evaluate(
            arithmetic(registry, samples=5, sampling=sampling, limit=1),
            engine(server),
            tmp_path,
            grader=grader,
        )
        assert [b["n"] for b in server.served] == [2, 3]
        assert len({b["seed"] for b in server.served}) == 2
    assert summary["completions"] == 5 and [r["sample"] for r in rows_of(summary)] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert summary["metrics"]["pass@1"] == summary["metrics"]["pass@5"] == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampling": {"temperature": 0.5}}, "sampling:"),
        ({"prompt": "r1_zero"}, "prompt:"),
        ({"seed": 3}, "sampling:"),
        ({"data": {"split": "train"}}, "data:"),
    ],
)
def test_results_of_other_settings_are_never_mixed(
    registry, grader, tmp_path, given, message
):
    with OpenAIServer(say("</think> <answer>1</answer>")) as server:
        evaluate(arithmetic(registry), engine(server), tmp_path, grader=grader)
        with pytest.raises(InputError, match=f"never mixed.*{message}.*--no-resume"):
            evaluate(
                arithmetic(registry, **given), engine(server), tmp_path, grader=grader
            )
        evaluate(
            arithmetic(registry, **given),
            engine(server),
            tmp_path,
            grader=grader,
            resume=False,
        )
        assert len(server.served) == 12


def test_another_grader_scores_the_same_completions_anew(registry, grader, tmp_path):
    responses = tmp_path / "r.jsonl"
    rows = [
        {
            "question": "q",
            "response": r"<think> so </think> <answer>2^{10}</answer>",
            "truth": "1024",
        }
    ]
    responses.write_text("".join(json.dumps(r) + "\n" for r in rows))
    values = []
    for fast in (True, False):
        stored = StoredResponses.read(responses)
        request = EvalRequest.of(registry.get("eval", "math"), options={"fast": fast})
        values.append(
            evaluate(
                plan_eval(request, registry, stored), None, tmp_path, grader=grader
            )["value"]
        )
    assert values == [0.0, 1.0]  # only math-verify accepts a power for an integer


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    first = Store(tmp_path, {}, {}, True)
    with pytest.raises(InputError, match="still being worked on by process"):
        Store(tmp_path, {}, {}, True)
    first.close()
    Store(tmp_path, {}, {}, True).close()


def test_choices_are_compared_by_log_likelihood(registry, grader, tmp_path):
    rows = [
        {
            "question": "2+2?",
            "options": ["1", "2", "3", "4"],
            "answer": "A",
            "subject": "anatomy",
        }
    ]
    (tmp_path / "mmlu.jsonl").write_text(json.dumps(rows[0]) + "\n")
    request = EvalRequest.of(
        registry.get("eval", "mmlu"),
        options={"mode": "likelihood"},
        data={"path": str(tmp_path / "mmlu.jsonl")},
    )
    planned = plan_eval(request, registry)
    # a model of characters that likes low code points: A
    with OpenAIServer(vllm=True) as server:
        summary = evaluate(planned, engine(server), tmp_path, grader=grader)
    row = rows_of(summary)[0]
    assert row["response"] == " A" and [
        one[0] for one in row["metadata"]["loglikelihoods"]
    ] == [
        " A",
        " B",
        " C",
        " D",
    ]
    assert summary["value"] == 1.0 and summary["provenance"]["prompt"]["name"] is None
    assert summary["provenance"]["sampling"] is None
    for given in ({"samples": 2}, {"sampling": {"temperature": 1.0}}):
        with pytest.raises(
            InputError, match="compares likelihoods, nothing is sampled"
        ):
            plan_eval(replace(request, **given), registry)


def test_likelihoods_that_are_no_numbers_name_no_letter(registry, tmp_path):
    class Diverged:
        name, model = "transformers", "m"

        def loglikelihoods(self, requests):
            nothing = Likelihood(float("nan"), None)
            return [[nothing] * len(choices) for _, choices in requests]

    rows = [
        {
            "question": "2+2?",
            "options": ["1", "2", "3", "4"],
            "answer": "A",
            "subject": "anatomy",
        }
    ]
    (tmp_path / "mmlu.jsonl").write_text(json.dumps(rows[0]) + "\n")
    given = {
        "options": {"mode": "likelihood"},
        "data": {"path": str(tmp_path / "mmlu.jsonl")},
    }
    planned = plan_eval(EvalRequest.of(registry.get("eval", "mmlu"), **given), registry)
    with pytest.raises(WorkError, match="are not numbers"):
        evaluate(planned, Diverged(), tmp_path)


def test_a_hostile_answer_cannot_hang_an_eval(registry, grader, tmp_path):
    responses = tmp_path / "r.jsonl"
    hostile = ["9**9**9**9", "99999999!", r"\text{" * 20000, "((((" * 5000]
    answers = [{"question": f"q{i}", "truth": "x", "response": f"</think> <answer>{a}</answer>"}
               for i, a in enumerate(hostile)]  # fmt: skip
    responses.write_text("".join(json.dumps(r) + "\n" for r in answers))
    planned = plan_eval(
        EvalRequest.of(registry.get("eval", "math")),
        registry,
        StoredResponses.read(responses),
    )
    summary = evaluate(planned, None, tmp_path, grader=grader)
    assert (
        summary["n"] == 4
        and summary["value"] == 0.0
        and "open" not in summary["status"]
    )


def test_an_engine_is_demanded_where_there_are_no_responses(registry, grader, tmp_path):
    with pytest.raises(
        InputError, match="needs a model, an endpoint or stored responses"
    ):
        evaluate(arithmetic(registry), None, tmp_path, grader=grader)


def test_samples_need_ids_of_their_own(registry):
    twins = Eval(
        name="twins",
        samples=lambda rows, render: [Sample("same", "p"), Sample("same", "q")],
        score=lambda sample, response: Score(1.0),
        data={"dataset": "arithmetic", "size": 2},
    )
    plugin = plugins.Plugin(
        "eval", "twins", twins, "kit", kits.builtin().root / "evals" / "arithmetic.py"
    )
    with pytest.raises(InputError, match="2 samples with the id 'same'"):
        plan_eval(EvalRequest.of(plugin), registry)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"temprature": 1.0},
            "no sampling setting 'temprature'; did you mean 'temperature'",
        ),
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5; expected an integer"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"temperature": float("inf")}, "finite, got inf"),
        ({"stop": 5}, "stop is 5; expected a text or a list of texts"),
        ({"stop": [1]}, "expected a text or a list"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"n": 4}, "no sampling setting 'n'"),
        ({"temperature": True}, "expected a number"),
    ],
)
def test_a_wrong_sampling_setting_is_named(given, message):
    with pytest.raises(InputError, match=message):
        make_sampling(given, "math")


def test_the_prompts_stop_strings_join_those_of_the_eval(registry):
    assert arithmetic(registry, prompt="zero_shot_system").sampling.stop == (
        "</answer>",
        "# Query:",
    )
    assert arithmetic(registry, sampling={"stop": []}).sampling.stop == ()


def test_a_limit_is_spread_over_the_data_and_grows_by_adding(registry):
    samples = [Sample(str(i), "p") for i in range(1000)]
    few, many = spread(samples, 50), spread(samples, 100)
    assert {s.id for s in few} <= {s.id for s in many}
    assert [int(s.id) for s in many] == sorted(int(s.id) for s in many)
    assert max(int(s.id) for s in few) > 900 and min(int(s.id) for s in few) < 100
    assert spread(samples, 2000) == samples


@pytest.mark.parametrize(("right", "n"), [(0, 20), (1, 7), (13, 40), (40, 40)])
def test_a_proportion_has_wilsons_interval(right, n):
    from statsmodels.stats.proportion import proportion_confint

    values = [1.0] * right + [0.0] * (n - right)
    mean, low, high = interval(values, [str(i) for i in range(n)])
    assert mean == right / n
    assert (low, high) == pytest.approx(proportion_confint(right, n, method="wilson"))


def test_a_mean_has_students_interval():
    from statsmodels.stats.weightstats import DescrStatsW

    values = [0.1, 0.5, 0.5, 0.9, -2.0, 3.5]
    assert interval(values, list("abcdef"))[1:] == pytest.approx(
        DescrStatsW(values).tconfint_mean()
    )


def test_completions_of_one_question_are_one_observation():
    """The cluster-robust error of a mean, against statsmodels' regression on a
    constant.
    """
    import numpy as np
    import statsmodels.api as sm
    from scipy.stats import t

    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    clusters = list("aabbbccdd")
    fit = sm.OLS(values, np.ones(9)).fit(
        cov_type="cluster", cov_kwds={"groups": np.array([*map(ord, clusters)])}
    )
    mean, low, high = interval(values, clusters)
    half = t.ppf(0.975, 3) * fit.bse[0]
    assert (mean, low, high) == pytest.approx(
        (fit.params[0], fit.params[0] - half, fit.params[0] + half)
    )


def test_an_interval_needs_something_to_measure():
    assert interval([], []) == (None, None, None)
    assert interval([0.3, 0.5], ["a", "a"]) == (0.4, 0.4, 0.4)


@pytest.mark.parametrize(
    ("n", "correct", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (7, 3, 5)]
)
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, correct, k):
    marks = [True] * correct + [False] * (n - correct)
    subsets = list(itertools.combinations(marks, k))
    assert pass_at_k(n, correct, k) == pytest.approx(
        sum(map(any, subsets)) / len(subsets)
    )


def scored(name, sample, reward, **more):
    row = {
        "id": name,
        "sample": sample,
        "reward": reward,
        "status": "ok" if reward else "wrong",
        "parts": {},
        "vote": None,
    }
    return {**row, "tokens": 3, "finish_reason": "stop", "metadata": {}, **more}


def test_open_rows_count_only_as_open():
    rows = [
        scored("a", 0, 1.0),
        scored("b", 0, None, status="open"),
        scored("c", 0, 0.0),
    ]
    found = summarize(rows, 1)
    assert (found["n"], found["value"], found["metrics"]["scored"]) == (3, 0.5, 2)
    assert found["status"] == {"ok": 1, "open": 1, "wrong": 1}


def test_mean_of_k_and_pass_at_k_of_several_samples():
    rows = [
        scored(q, k, float(r))
        for q, marks in {"a": "1100", "b": "0000"}.items()
        for k, r in enumerate(marks)
    ]
    found = summarize(rows, 4)
    assert found["value"] == 0.25 and found["metrics"]["pass@1"] == 0.25
    assert (
        found["metrics"]["pass@2"] == pytest.approx(5 / 12)
        and found["metrics"]["pass@4"] == 0.5
    )


def test_breakdowns_have_the_groups_own_numbers():
    rows = [
        scored(str(i), 0, float(i % 2), metadata={"level": 1 + i // 4})
        for i in range(8)
    ]
    found = breakdown([*rows, scored("x", 0, 1.0)], "level")
    assert (
        list(found) == ["1", "2"]
        and found["1"]["n"] == 4
        and found["2"]["value"] == 0.5
    )


def test_an_answer_without_format_gets_its_own_class_only_where_it_occurs():
    def part(f, a):
        return {"parts": {"format_reward": f, "answer_reward": a}}

    assert list(tally([part(1, 1)])) == [
        "format=1 answer=1",
        "format=1 answer=0",
        "format=0 answer=0",
    ]
    assert tally([part(0, 1), {"parts": {}}])["format=0 answer=1"] == 1
    assert tally([{"parts": {}}]) == {}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return StoredResponses.read(path)


def test_stored_responses_are_matched_by_id_by_question_or_by_order(
    registry, grader, tmp_path
):
    samples = arithmetic(registry).samples
    answers = [f"</think> <answer>{s.truth}</answer>" for s in samples]
    by_id = [
        {"id": s.id, "response": a} for s, a in zip(samples, answers, strict=True)
    ][::-1]
    by_text = [
        {"question": s.id, "output": a} for s, a in zip(samples, answers, strict=True)
    ][::-1]
    by_order = [{"completion": a} for a in answers]
    for number, rows in enumerate((by_id, by_text, by_order)):
        stored = write(tmp_path / f"{number}.jsonl", rows)
        summary = evaluate(
            arithmetic(registry, stored), None, tmp_path / str(number), grader=grader
        )
        assert (summary["n"], summary["value"]) == (6, 1.0)


def test_some_missing_responses_leave_the_others_scored(registry, grader, tmp_path):
    first = arithmetic(registry).samples[0]
    stored = write(
        tmp_path / "r.jsonl",
        [{"id": first.id, "response": "?"}, {"id": "other", "response": "?"}],
    )
    said = []
    summary = evaluate(
        arithmetic(registry, stored),
        None,
        tmp_path,
        grader=grader,
        announce=said.append,
    )
    assert summary["n"] == 1
    used = summary["provenance"]["responses"]
    assert (
        used["rows"],
        used["rows_of_no_question"],
        used["questions_without_response"],
    ) == (2, 1, 5)
    assert (
        "1 of 2 responses fit; 5 questions have no response and are left out" in said[0]
    )


def test_a_changed_file_of_responses_is_scored_anew(registry, grader, tmp_path):
    for answer, value in (("4", 1.0), ("5", 0.0), ("4", 1.0)):
        row = {
            "question": "q",
            "truth": "4",
            "response": f"</think> <answer>{answer}</answer>",
        }
        stored = write(tmp_path / "r.jsonl", [row])
        planned = plan_eval(
            EvalRequest.of(registry.get("eval", "math")), registry, stored
        )
        assert (
            evaluate(planned, None, tmp_path / "out", grader=grader)["value"] == value
        )


def test_responses_to_a_question_that_several_samples_share_are_matched_by_order_or_refused(
    registry, tmp_path
):
    same = {"question": "Which is right?", "subject": "anatomy"}
    rows = [
        {**same, "options": list("wxyz"), "answer": "A"},
        {**same, "options": list("stuv"), "answer": "B"},
        {**same, "question": "Other?", "options": list("stuv"), "answer": "C"},
    ]
    (tmp_path / "mmlu.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    request = EvalRequest.of(
        registry.get("eval", "mmlu"), data={"path": str(tmp_path / "mmlu.jsonl")}
    )
    answers = [
        {"question": row["question"], "response": f"The answer is {row['answer']}"}
        for row in rows
    ]
    stored = plan_eval(request, registry, write(tmp_path / "r.jsonl", answers)).stored
    assert {name: row["response"][-1] for (name, _), row in stored.items()} == {
        "mmlu-test-0": "A",
        "mmlu-test-1": "B",
        "mmlu-test-2": "C",
    }
    for part in (answers[:2], [answers[2], *answers[:2]]):
        with pytest.raises(
            InputError,
            match="2 of the eval's samples have the question 'Which is right",
        ):
            plan_eval(request, registry, write(tmp_path / "r.jsonl", part))


def test_responses_that_stand_for_themselves_need_what_the_eval_asks_for(
    registry, tmp_path
):
    request = EvalRequest.of(registry.get("eval", "mmlu"))
    row = {"question": "q", "truth": "A", "response": "The answer is A"}
    with pytest.raises(
        InputError, match=r"r\.jsonl: rows with a truth .* also needs their 'options'"
    ):
        plan_eval(request, registry, write(tmp_path / "r.jsonl", [row]))
    with pytest.raises(InputError, match="the truth of r0 is 0; expected A, B, C or D"):
        plan_eval(
            request,
            registry,
            write(tmp_path / "r.jsonl", [{**row, "options": list("abcd"), "truth": 0}]),
        )
    good = write(tmp_path / "r.jsonl", [{**row, "options": list("abcd")}])
    assert plan_eval(request, registry, good).samples[0].truth == "A"


def test_sampling_settings_are_refused_where_nothing_is_sampled(registry, tmp_path):
    stored = write(
        tmp_path / "r.jsonl",
        [{"id": arithmetic(registry).samples[0].id, "response": "?"}],
    )
    with pytest.raises(InputError, match="not sampled, so nothing reads temperature"):
        arithmetic(registry, stored, sampling={"temperature": 0.5})


def test_a_reference_that_changed_is_judged_anew(registry, grader, tmp_path):
    def judge(body):
        return (
            "reward:1.0"
            if body["messages"][-1]["content"] in ("ok", "old")
            else "reward:2.0"
        )

    asked = []
    for reference, value in (("old", 0.5), ("new", 0.0)):
        (tmp_path / "u.jsonl").write_text(
            json.dumps({"prompt": "q", "chosen": reference}) + "\n"
        )
        request = EvalRequest.of(
            registry.get("eval", "ultrafeedback"),
            data={"path": str(tmp_path / "u.jsonl")},
        )
        with OpenAIServer() as model, OpenAIServer(judge) as server:
            client = JudgeClient(
                resolve(registry, "vllm:j", server.url), tmp_path / "judgements.jsonl"
            )
            summary = evaluate(
                plan_eval(request, registry), engine(model), tmp_path, judge=client
            )
            asked.append((len(model.served), len(server.served)))
        assert (
            summary["value"] == value
            and rows_of(summary)[0]["metadata"]["reference"] == reference
        )
    assert asked == [(1, 2), (0, 1)]


def test_responses_that_bring_their_questions_need_no_data(
    registry, grader, tmp_path, monkeypatch
):
    monkeypatch.delenv("ALIGN_DATA", raising=False)
    rows = [
        {
            "question": "q",
            "ground_truth": "4",
            "response": f"</think> <answer>{n}</answer>",
        }
        for n in (4, 5, 4)
    ]
    stored = write(tmp_path / "r.jsonl", [*rows, {**rows[0], "question": "other"}])
    planned = plan_eval(EvalRequest.of(registry.get("eval", "math")), registry, stored)
    summary = evaluate(planned, None, tmp_path, grader=grader)
    assert (summary["n"], summary["completions"], summary["value"]) == (2, 4, 0.75)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "nobody", "response": "a"}], "no row's id is one of"),
        ([{"question": "none", "response": "a"}], "no row's question is one of"),
        ([{"response": "a"}, {"response": "b"}], "2 responses for 6 samples"),
        ([{"text": "a"}], "jsonl:1 has no text `response`; it has text"),
        ([{"response": 3}], "jsonl:1 has no text `response`"),
        (
            [{"response": "a", "tokens": "many"}],
            "jsonl:1 has 'many' as its number of tokens",
        ),
        (
            [{"id": "1+1+1+1=?", "question": "q", "response": "a"}],
            "are responses to other data",
        ),
        ([], "holds no responses"),
    ],
)
def test_responses_that_fit_nothing_are_refused(registry, tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        arithmetic(registry, write(tmp_path / "r.jsonl", rows))


def test_a_missing_file_of_responses_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"no file of responses .*none\.jsonl"):
        StoredResponses.read(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("file", "prompt"),
    [
        ("rollouts_shibuki_grpo_train.jsonl", "r1_zero"),
        ("rollouts_shibuki_question_only.jsonl", "question_only"),
        ("rollouts_garg_48.jsonl", None),
    ],
)
def test_recorded_rewards_of_real_outputs_are_reproduced(
    registry, grader, tmp_path, align_data, file, prompt
):
    stored = StoredResponses.read(align_data / file)
    planned = plan_eval(
        EvalRequest.of(registry.get("eval", "math"), prompt=prompt), registry, stored
    )
    summary = evaluate(planned, None, tmp_path, grader=grader)
    recorded = [r["reward"] for r in stored.rows]
    assert summary["value"] == sum(recorded) / len(recorded)
    found = {
        (r["metadata"]["question"], r["response"]): r["reward"]
        for r in rows_of(summary)
    }
    for row in stored.rows:
        assert (
            found[(row.get("question", row.get("prompt")), row["response"])]
            == row["reward"]
        )


def voted(question, *cast):
    """Rows of one question: `+` a right answer, `-` none, anything else a wrong one."""
    return [
        {
            "id": question,
            "sample": number,
            "status": {"+": "ok", "-": "unparsed"}.get(said, "wrong"),
            "vote": None if said in "+-" else said,
            "reward": float(said == "+"),
            "parts": {},
            "tokens": 1,
            "finish_reason": "stop",
        }
        for number, said in enumerate(cast)
    ]


@pytest.mark.parametrize(
    ("cast", "right"),
    [
        ("++71", True),  # two of four
        ("+177", False),
        ("+1+1", True),  # a tie goes to the first
        ("1+1+", False),
        ("-+--", True),  # who says nothing has no vote
        ("----", False),
        ("+123", True),  # wrong ones that differ are no majority
    ],
)
def test_the_most_frequent_answer_wins(cast, right):
    assert majority(voted("a", *cast), 4)["maj@4"][0] == float(right)


def test_maj_at_k_has_an_interval_over_whole_questions_and_needs_the_wrong_answers():
    rows = [*voted("a", *"++1"), *voted("b", *"117"), *voted("c", "+")]
    found = summarize(rows, 3)
    assert found["metrics"]["maj@3"] == 0.5, "c is not complete"
    assert found["intervals"]["maj@3"] == list(interval([1.0, 0.0], ["a", "b"])[1:])
    assert (
        "maj@3" not in summarize([{**row, "vote": None} for row in rows], 3)["metrics"]
    )
    assert not summarize(rows, 1)["intervals"]


@pytest.mark.parametrize(
    ("name", "form", "alike", "other"),
    [
        ("math", r"\boxed{{{}}}", ["0.5", r"\frac12", "1/2"], "2"),
        ("math", r"\boxed{{{}}}", [r"x + 1", "x+1"], "x+2"),
        (
            "drgrpo",
            "</think> <answer>{}</answer>",
            [r"\dfrac{1}{2}", r"\frac{1}{2}"],
            "7",
        ),
        ("exact_match", "{}", ["Rome", " Rome\n"], "Oslo"),
    ],
)
def test_wrong_answers_that_are_equal_are_one_vote(registry, name, form, alike, other):
    grade = registry.get("reward", name).value.function
    votes = {grade(form.format(said), "99").answer for said in alike}
    assert len(votes) == 1 and None not in votes
    assert grade(form.format(other), "99").answer not in votes
    assert grade(form.format("99"), "99").status == "ok"


def test_completions_of_an_eval_are_counted_by_majority(registry, grader, tmp_path):
    said = itertools.cycle(["1", "1.0", "-"])
    with OpenAIServer(
        lambda body: {"-": right(body)}.get(
            one := next(said), f"</think> <answer>{one}</answer>"
        )
    ) as server:
        summary = evaluate(
            arithmetic(registry, samples=3, limit=2),
            engine(server, concurrency=1),
            tmp_path,
            grader=grader,
        )
    # 1.0 is no integer there: it has no vote, so that it is one against one
    assert summary["status"] == {"ok": 2, "unparsed": 2, "wrong": 2}
    assert summary["metrics"]["maj@3"] == 0.0 and summary["metrics"]["pass@3"] == 1.0
    assert [row["vote"] for row in rows_of(summary)[:3]].count("1") == 1
