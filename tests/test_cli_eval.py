"""`align eval`: flags, what is refused before anything runs, kill -9, judged evals, and
what is printed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from servers import OpenAIServer, say

from alignkit.cli import main
from alignkit.cli.eval_results import left_open

RIGHT = "</think> <answer>{}</answer>"


def solve(body):
    digits = body["prompt"].split("User: ")[1].split("=")[0].split("+")
    return RIGHT.format(sum(map(int, digits)))


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["eval", *map(str, arguments)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


def at(server, *more):
    return ("--base-url", server.url, "--model", "m", *more)


def sst_file(folder, count=6):
    path = folder / "sst.csv"
    path.write_text(
        "id,harm_area,category,prompts_final\n"
        + "".join(f"s{i},a,c,How {i}?\n" for i in range(count))
    )
    return path


def test_json_gives_the_summaries_and_nothing_else_on_stdout(align, tmp_path):
    with OpenAIServer(solve) as server:
        code, out, _ = align("arithmetic", *at(server), "--limit", 5, "--json")
    (summary,) = json.loads(out)
    assert code == 0 and summary["value"] == 1.0 and summary["n"] == 5
    assert (tmp_path / summary["folder"]).relative_to(tmp_path).parts == (
        "runs",
        "evals",
        "m",
        "arithmetic@0",
    )


def test_the_table_shows_value_interval_and_where_the_files_are(align):
    with OpenAIServer(solve) as server:
        code, out, _ = align("arithmetic", *at(server), "--limit", 5, "--out", "here")
    assert (
        code == 0
        and "1.0000" in out
        and "0.5655 to 1.0000" in out
        and "here/arithmetic@0" in out
    )
    assert "format=1 answer=1: 5" in out


def test_what_is_kept_from_an_earlier_call_is_said(align):
    with OpenAIServer(solve) as server:
        align("arithmetic", *at(server), "--limit", 3)
        _, _, err = align("arithmetic", *at(server), "--limit", 5)
    assert "3 of 5 completions are kept from earlier calls" in err


def test_completions_of_another_api_are_not_taken_for_these(align):
    with OpenAIServer(lambda body: "x") as server:
        align("arithmetic", *at(server), "--limit", 2)
        code, _, err = align("arithmetic", *at(server), "--limit", 2, "--api", "chat")
        assert (
            code == 2
            and "how: api not stated there, 'chat' now" in err
            and len(server.served) == 2
        )


def test_brackets_in_names_are_no_markup(align):
    with OpenAIServer(solve) as server:
        models = ("--base-url", server.url, "--model", "a[red]b[/x]")
        code, out, _ = align("arithmetic", *models, "--limit", 2, "--out", "o[bold]")
    assert code == 0 and "a[red]b[/x]" in out and "o[bold]/arithmetic@0" in out


def test_several_models_go_into_folders_of_their_own(align, tmp_path):
    with OpenAIServer(solve) as server:
        models = ("--base-url", server.url, "--model", "org/a", "--model", "b")
        code, out, _ = align(
            "arithmetic", *models, "--limit", 3, "--out", "o", "--json"
        )
        assert len(server.served) == 6
    assert code == 0 and [s["provenance"]["model"] for s in json.loads(out)] == [
        "org/a",
        "b",
    ]
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["b", "org-a"]


def test_settings_reach_the_engine(align):
    with OpenAIServer(solve) as server:
        flags = (
            "--set",
            "temperature=0.6",
            "--set",
            "arithmetic.max_new_tokens=7",
            "--set",
            "size=3",
            "--seed",
            4,
        )
        _, out, _ = align("arithmetic", *at(server), *flags, "--samples", 2, "--json")
        bodies = list(server.served)
        align("arithmetic", *at(server), *flags[:-1], 5, "--samples", 2, "--no-resume")
    assert {(b["temperature"], b["max_tokens"], b["n"]) for b in bodies} == {
        (0.6, 7, 2)
    }
    assert {b["seed"] for b in bodies}.isdisjoint(
        b["seed"] for b in server.served[len(bodies) :]
    )
    (summary,) = json.loads(out)
    assert (summary["n"], summary["completions"], summary["metrics"]["pass@2"]) == (
        3,
        6,
        1.0,
    )


def test_a_prompt_file_is_used_and_recorded(align, tmp_path):
    (tmp_path / "p.txt").write_text("User: {question} {x\n")
    with OpenAIServer(solve) as server:
        code, out, _ = align(
            "arithmetic", *at(server), "--limit", 2, "--prompt-file", "p.txt", "--json"
        )
        assert server.served[0]["prompt"].endswith("=? {x\n")
    assert code == 0 and json.loads(out)[0]["provenance"]["prompt"]["name"] == "p.txt"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["aritmetic", "--model", "m"], 2, "did you mean 'arithmetic'"),
        (["arithmetic"], 2, "no finished run in runs; pass --model"),
        (["arithmetic", "--responses", ""], 2, "--responses: an empty text was given"),
        (
            ["arithmetic", "--out", "", "--data", ""],
            2,
            "--out, --data: an empty text was given",
        ),
        (["arithmetic", "--model", ""], 2, "--model: an empty text was given"),
        (["arithmetic", "--model", "no/such/folder"], 2, "no folder no/such/folder"),
        (
            ["arithmetic", "--model", "m", "--engine", "openai"],
            2,
            "needs --base-url URL",
        ),
        (
            ["arithmetic", "--responses", "r", "--model", "m", "--dtype", "float32"],
            2,
            "leave out --model, --dtype",
        ),
        (
            ["arithmetic", "--model", "m", "--serve", "--base-url", "http://h/v1"],
            2,
            "no --base-url",
        ),
        (
            ["arithmetic", "--model", "m", "--replicas", "2"],
            2,
            "--replicas is read with --serve only, not with",
        ),
        (
            [
                "arithmetic",
                "--model",
                "m",
                "--max-num-seqs",
                "2",
                "--base-url",
                "http://h/v1",
            ],
            2,
            "--engine vllm, --serve",
        ),
        (
            ["arithmetic", "--model", "m", "--concurrency", "2"],
            2,
            "--concurrency is read with --serve, --base-url",
        ),
        (
            ["arithmetic", "--model", "m", "--judge", "openai"],
            2,
            "no model judges arithmetic",
        ),
        (
            ["arithmetic", "--model", "m", "--max-cost", "1"],
            2,
            "--max-cost is for a judge",
        ),
        (
            ["arithmetic", "--responses", "none.jsonl"],
            3,
            "no file of responses none.jsonl",
        ),
        (
            ["arithmetic", "--set", "temprature=1"],
            2,
            "no such setting; did you mean 'temperature'",
        ),
        (
            ["arithmetic", "--set", "math.temperature=1"],
            2,
            "EVAL.KEY=VALUE with one of arithmetic",
        ),
        (["arithmetic", "--set", "temperature"], 2, "expected KEY=VALUE"),
        (["arithmetic", "--set", "temperature=[1"], 2, "not YAML: "),
        (
            ["arithmetic", "--set", "temperature=hot"],
            2,
            "temperature is 'hot'; expected a number",
        ),
        (["arithmetic", "--set", "worked=2"], 2, "worked is 2"),
        (["arithmetic", "--prompt", "arithmetik"], 2, "did you mean 'arithmetic'"),
        (
            ["arithmetic", "--prompt", "chat", "--prompt-file", "p"],
            2,
            "exclude each other",
        ),
        (["arithmetic", "--prompt-file", "none.txt"], 3, "no prompt file none.txt"),
        (
            ["arithmetic", "gsm8k", "--data", "file.jsonl"],
            2,
            "one file for several evals",
        ),
        (["arithmetic", "--split", "dev"], 2, "splits train and test"),
        (["sst"], 2, "name one with --judge (fireworks"),
        (["gsm8k"], 3, "ALIGN_DATA"),
        (["gsm8k", "--data", "none.jsonl"], 3, "no data file none.jsonl"),
        (["arithmetic", "--limit", "0"], 2, "0 is not in the range"),
    ],
)
def test_wrong_flags_are_refused_before_anything_runs(
    align, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.delenv("ALIGN_DATA", raising=False)
    with OpenAIServer(solve) as server:
        if (
            "--model" not in arguments
            and "--responses" not in arguments
            and arguments != ["arithmetic"]
        ):
            arguments = [*arguments, *at(server)]
        found, _, err = align(*arguments)
        assert not server.served
    assert (found, message in err) == (code, True), err
    assert "Traceback" not in err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/nowhere", "/dev/null"])
def test_results_have_a_place_before_anything_is_asked(align, tmp_path, out):
    (tmp_path / "file").write_text("")
    place = tmp_path / out
    with OpenAIServer(solve) as server:
        asked = "arithmetic", "--limit", "3", *at(server), "--out", str(place)
        code, _, err = align(*asked)
        assert not server.served
    assert code == 3 and f"cannot write {place}" in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_endpoints_model_is_named_and_never_a_run_of_this_folder(align):
    with OpenAIServer(solve) as server:
        code, _, err = align("arithmetic", "--base-url", server.url)
        assert (
            code == 2
            and "--model: name the model as the server" in err
            and not server.requests
        )


def test_a_missing_key_names_its_variable(align, tmp_path, monkeypatch):
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    with OpenAIServer(say("no")) as server:
        code, _, err = align(
            "sst", *at(server), "--data", sst_file(tmp_path), "--judge", "fireworks"
        )
    assert code == 3 and "FIREWORKS_API_KEY" in err


def test_stored_responses_are_scored_without_a_model(align, tmp_path):
    rows = [
        {"question": "q", "truth": "4", "response": "so </think> <answer>4</answer>"}
    ]
    (tmp_path / "r.jsonl").write_text(json.dumps(rows[0]) + "\n")
    code, out, _ = align("math", "--responses", "r.jsonl", "--json")
    (summary,) = json.loads(out)
    assert (
        code == 0
        and summary["value"] == 1.0
        and summary["provenance"]["engine"] == "responses"
    )


def test_unreadable_verdicts_stay_open_and_are_all_that_is_asked_next(
    align, tmp_path, monkeypatch
):
    monkeypatch.setenv("FIREWORKS_API_KEY", "secret-key-1")
    data = sst_file(tmp_path)
    confused = {"on": True}

    def judge(body):
        if "Assistant Response" not in body["messages"][-1]["content"]:
            return "reply"
        number = int(body["messages"][-1]["content"].split("How ")[1].split("?")[0])
        return (
            "I cannot say."
            if confused["on"] and number < 2
            else ["False", "True"][number % 2]
        )

    with OpenAIServer(
        lambda b: "reply" if "prompt" in b else judge(b), key="secret-key-1"
    ) as server:
        flags = (*at(server, "--key-variable", "FIREWORKS_API_KEY"), "--data", data, "--judge", "fireworks",
                 "--judge-base-url", server.url, "--json")  # fmt: skip
        code, out, err = align("sst", *flags)
        (summary,) = json.loads(out)
        assert (
            code == 1
            and "2 judgements are left open, 2 of them: unreadable verdict" in err
        )
        # what it will cost is said before it is spent
        assert "sst: 6 requests, about" in err
        assert (
            summary["status"] == {"ok": 2, "open": 2, "wrong": 2}
            and summary["metrics"]["scored"] == 4
        )
        assert summary["value"] == 0.5 and summary["judging"]["dollars"] > 0
        confused["on"] = False
        before = len(server.served)
        code, out, _ = align("sst", *flags)
        assert len(server.served) - before == 2
    (summary,) = json.loads(out)
    assert (
        code == 0 and summary["status"] == {"ok": 3, "wrong": 3} and summary["n"] == 6
    )
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert "secret-key-1" not in written + out + err


def test_alpaca_runs_through_the_library_and_keeps_its_files(
    align, tmp_path, monkeypatch
):
    pytest.importorskip("alpaca_eval")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    rows = [
        {
            "instruction": f"Do {i} {{x}}",
            "output": f"reference {i}",
            "generator": "gpt4_1106_preview",
        }
        for i in range(8)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))

    def judge(body):
        text = body["messages"][-1]["content"]
        if "Do 7" in text:
            return "no idea"
        ours_first = text.index("our reply") < text.index("reference")
        first, second = (1, 2) if ours_first else (2, 1)
        return (
            f"[{{'model': 'm1', 'rank': {first}}}, {{'model': 'm2', 'rank': {second}}}]"
        )

    def answer(body):
        if "messages" in body:
            return judge(body)
        return "reference 0" if "Do 0" in body["prompt"] else "our reply\n```"

    with OpenAIServer(answer) as server:
        flags = (
            "--data",
            "alpaca.json",
            "--judge",
            "openai",
            "--judge-base-url",
            server.url,
            "--out",
            "o",
            "--json",
        )
        code, out, _ = align("alpaca", *at(server), *flags)
        judged = [
            b for b in server.served if "messages" in b and "Do 0" in json.dumps(b)
        ]
    (summary,) = json.loads(out)
    library = summary["breakdown"]
    # a draw costs nothing
    assert code == 1 and summary["status"]["open"] == 1 and judged == []
    assert (library["n_total"], library["n_wins"], library["n_draws"]) == (7, 6, 1)
    assert library["win_rate"] == pytest.approx(100 * summary["value"])
    assert (
        library["length_controlled"]
        == "absent: these are not the 805 instructions of the benchmark"
    )
    folder = tmp_path / "o" / "alpaca@0"
    assert "win_rate" in (folder / "leaderboard.csv").read_text()
    annotations = json.loads((folder / "annotations.json").read_text())
    assert len(annotations) == 7 and {a["preference"] for a in annotations} == {
        1.5,
        2.0,
    }
    with OpenAIServer(answer) as server:
        flags = (
            "--data",
            "alpaca.json",
            "--judge",
            "openai",
            "--judge-base-url",
            server.url,
            "--out",
            "o2",
            "--json",
        )
        _, out, _ = align("alpaca", *at(server), *flags, "--limit", 1)
    assert (
        "NaN" not in out and json.loads(out)[0]["breakdown"]["standard_error"] is None
    )


def start(*arguments, cwd):
    command = [sys.executable, "-m", "alignkit.cli", "eval", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come to it in time")


def test_after_kill_9_only_what_is_missing_is_generated(tmp_path):
    concurrency = 4
    with OpenAIServer(solve, latency=0.05) as server:
        flags = (
            "arithmetic",
            *at(server),
            "--limit",
            120,
            "--concurrency",
            concurrency,
            "--out",
            "o",
        )
        first = start(*flags, cwd=tmp_path)
        wait_for(lambda: len(server.served) > 40)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = start(*flags, cwd=tmp_path)
        _, err = second.communicate(timeout=120)
        assert second.returncode == 0, err
        # Those under way at the kill are asked again, and those answered in the instant
        # before it.
        assert 120 <= len(server.served) <= 120 + 2 * concurrency
    rows = [
        json.loads(line)
        for line in (tmp_path / "o" / "arithmetic@0" / "samples.jsonl").open()
    ]
    assert len({r["id"] for r in rows}) == len(rows) == 120 and all(
        r["status"] == "ok" for r in rows
    )


def test_an_interrupted_eval_says_that_it_goes_on(tmp_path):
    with OpenAIServer(solve, latency=0.05) as server:
        started = start(
            "arithmetic", *at(server), "--limit", 200, "--concurrency", 2, cwd=tmp_path
        )
        wait_for(lambda: len(server.served) > 4)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
    assert (
        started.returncode == 130
        and b"run the same command again" in err
        and b"Traceback" not in err
    )


@pytest.mark.slow
def test_805_judgements_with_faults_refusals_and_two_kills_are_settled_and_paid_once(
    tmp_path, monkeypatch
):
    pytest.importorskip("alpaca_eval")
    rows = [
        {"instruction": f"Do {i}.", "output": f"reference {i}", "generator": "g"}
        for i in range(805)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    ours = [{"instruction": f"Do {i}.", "output": f"ours {i}"} for i in range(805)]
    (tmp_path / "ours.json").write_text(json.dumps(ours))
    verdict = "[{'model': 'm1', 'rank': 1}, {'model': 'm2', 'rank': 2}]"
    faults = ("500", "503:0", "reset", "half", "garbage") * 3 + ("429:0",)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    concurrency = 32

    refused = Counter()

    def refuses(body):
        text = body["messages"][-1]["content"]
        number = int(text.split("Do ")[1].split(".")[0])
        if number % 10 != 7:
            return ""
        refused[number] += 1
        return "filtered"

    with OpenAIServer(
        say(verdict),
        latency=0.02,
        fault_rate=0.25,
        random_faults=faults,
        refuses=refuses,
    ) as server:
        flags = (
            *("alpaca", "--responses", "ours.json", "--data", "alpaca.json"),
            *("--judge", "openai", "--judge-base-url", server.url),
            *("--concurrency", concurrency, "--out", "o"),
        )
        for share in (200, 500):
            killed = start(*flags, cwd=tmp_path)
            wait_for(lambda share=share: len(server.served) > share, 120)
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
        last = start(*flags, cwd=tmp_path)
        _, err = last.communicate(timeout=240)
        assert last.returncode == 0, err
        assert sum(server.faulted.values()) > 100
        answered = server.times_served()
        assert (len(answered), len(refused)) == (725, 80)
        # what was on its way at a kill, and answered in the instant before it
        again = answered.total() + refused.total() - 805
        assert again <= 2 * 2 * concurrency
        assert max(answered.values()) <= 3
    kept = [json.loads(line) for line in (tmp_path / "o" / "judgements.jsonl").open()]
    assert len(kept) == len({r["key"] for r in kept}) == 805
    summary = json.loads((tmp_path / "o" / "alpaca@0" / "summary.json").read_text())
    assert summary["breakdown"]["n_total"] == summary["metrics"]["scored"] == 725
    assert summary["status"]["refused"] == 80
    print(f"asked again after a kill: {again}")


def test_the_eval_in_the_guide_runs_as_it_stands(align, tmp_path):
    guide = Path(__file__).parents[1] / "docs" / "evals.md"
    example = guide.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "kit" / "evals").mkdir(parents=True)
    (tmp_path / "kit" / "evals" / "contains.py").write_text(example)
    (tmp_path / "g.jsonl").write_text(
        json.dumps({"question": "1+1?", "answer": "so\n#### 2"}) + "\n"
    )
    with OpenAIServer(
        lambda body: "It is 2" if "1+1? please" in json.dumps(body) else ""
    ) as server:
        flags = (
            "--kit",
            "kit",
            "--data",
            "g.jsonl",
            "--set",
            "suffix=' please'",
            "--json",
        )
        code, out, err = align("contains", *at(server), *flags)
    assert code == 0, err
    assert json.loads(out)[0]["value"] == 1.0


@pytest.mark.parametrize(
    ("reason", "repeats"),
    [
        ("host answered 503", True),
        ("host answered 429", True),
        ("no answer within 120 s (after 8 attempts)", True),
        ("host answered 422", False),
        ("cut by its limit of 16 tokens; raise it with --judge-tokens", False),
        ("unreadable verdict", False),
    ],
)
def test_repeating_is_advised_where_it_can_help(reason, repeats):
    said = left_open(3, [{"judging": {"open": {reason: 2, "other": 1}}}])
    assert f"3 judgements are left open, 2 of them: {reason}" in said
    assert ("run the same command again" in said) == repeats
