"""`align compare` from the command line."""

from __future__ import annotations

import json

import pytest

from alignkit.cli import main


@pytest.fixture
def align(capsys):
    """Runs the command here: (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return left.value.code, *capsys.readouterr()

    return run


def test_json_is_the_only_thing_on_standard_output_and_files_lie_where_asked(
    align, make, tmp_path
):
    code, out, err = align(
        "compare", *make.ablation(seeds=(0,)), "--json", "--out", tmp_path / "out"
    )
    assert code == 0, err
    assert [row["label"] for row in json.loads(out)["rows"]] == [
        "sequence",
        "constant",
        "microbatch",
    ]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {
        "compare.md",
        "compare.csv",
        "compare.json",
        "compare.tex",
        "panels.png",
        "panels.svg",
    } <= names


def test_a_pipe_gets_the_markdown_table(align, make):
    _, out, _ = align("compare", *make.ablation(seeds=(0,)))
    assert out.startswith("| variant |") and "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "eval/math/acuracy"], "did you mean 'eval/math/accuracy'"),
        (["--base", "nothing"], "there is no variant 'nothing'"),
        (["/nowhere"], "is no run folder"),
    ],
)
def test_wrong_input_leaves_with_2_and_says_why(align, make, arguments, said):
    code, _, err = align("compare", make.run(), *arguments)
    assert code == 2 and said in err


def test_different_measurement_leaves_with_2_unless_forced(align, make):
    runs = [make.run("a"), make.run("b", recipe={"x": 1}, provenance={"grader": "g2"})]
    code, _, err = align("compare", *runs)
    assert code == 2 and "its grader" in err and "--force" in err
    code, out, _ = align("compare", *runs, "--force")
    assert code == 0 and "NOT COMPARABLE" in out
