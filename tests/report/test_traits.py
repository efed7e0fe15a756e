"""What the responses of two evals are like."""

from __future__ import annotations

from alignkit.report.traits import traits
from alignkit.run import new_row


def rows(*responses: str, **fields):
    return [
        new_row({"response": text, "tokens": len(text), **fields}) for text in responses
    ]


def test_shares_of_both_sides_stand_side_by_side():
    before = rows("</think> it is", "x", status="wrong", finish_reason="length")
    after = rows("\\boxed{4}", "\\boxed{5} ```", status="ok", finish_reason="stop")
    found = {name: (a, b) for name, a, b in traits(before, after)}
    assert found["tokens, mean"] == (7.5, 11.0)
    assert found["cut at max_new_tokens"] == (1.0, 0.0)
    assert found["wrong"] == (1.0, 0.0) and found["ok"] == (0.0, 1.0)
    assert found["empty thinking"] == (0.5, 0.0)
    assert found["a box"] == (0.0, 1.0) and found["a code block"] == (0.0, 0.5)
    assert found["“</think> it is”"] == (0.5, 0.0)
    assert "a list" not in found  # which neither side has


def test_the_same_responses_show_no_phrase():
    same = rows("one two three four", tokens=None)
    assert not [name for name, *_ in traits(same, same) if name.startswith("“")]
