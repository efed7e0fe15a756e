"""Equations, and inequalities as the intervals that they say."""

from __future__ import annotations

from alignkit.grading.answer.formula import formula
from alignkit.grading.answer.shapes import RELATION, Answer, Hedged, split
from alignkit.grading.answer.tree import Tree, Unreadable
from alignkit.grading.answer.worth import same


def equation(text: str) -> Answer:
    r"""`2x + y = 3`; a chain of numbers, which all have to be the same."""
    parts = [part.strip() for part in split(text, "=")]
    trees = [formula(part) for part in parts]
    if not any(tree.symbols() for tree in trees):
        if not all(same(trees[0], tree) for tree in trees[1:]):
            raise Hedged("an equation of numbers that are not equal")
        return Answer("value", text, trees[-1])
    if len(trees) == 2:
        return Answer("equation", text, trees=tuple(trees))
    raise Unreadable("several equations in one")


def inequality(text: str) -> Answer:
    """As the interval that it says, where it bounds one variable."""
    signs = [sign[0].strip() for sign in RELATION.finditer(text)]
    parts = [part.strip() for part in RELATION.split(text)]
    trees = [formula(part) for part in parts]
    rising = {"<": 1, "\\le": 1, "<=": 1, ">": -1, "\\ge": -1, ">=": -1}
    directions = {rising.get(sign) for sign in signs}
    if len(directions) != 1 or None in directions or len(trees) > 3:
        if len(trees) == 2:
            return Answer("relation", text, trees=tuple(trees), label="\\ne")
        raise Unreadable("relations of several kinds")
    if directions == {-1}:
        trees.reverse()
        parts.reverse()
        signs.reverse()
    closed = ["l" in sign or "g" in sign or "=" in sign for sign in signs]
    infinity = Answer("value", "\\infty", Tree("infinity"))
    below = Answer("value", "-\\infty", Tree("neg", args=(Tree("infinity"),)))
    bounds = [Answer("value", p, t) for p, t in zip(parts, trees, strict=True)]
    if len(trees) == 3:
        if trees[1].kind != "symbol":
            raise Unreadable("bounds of a formula")
        brackets = ("[" if closed[0] else "(") + ("]" if closed[1] else ")")
        return Answer("several", text, items=(bounds[0], bounds[2]), brackets=brackets)
    if trees[0].kind == "symbol" and not trees[1].symbols():
        return Answer(
            "several",
            text,
            items=(below, bounds[1]),
            brackets="(" + (")", "]")[closed[0]],
        )
    if trees[1].kind == "symbol" and not trees[0].symbols():
        return Answer(
            "several",
            text,
            items=(bounds[0], infinity),
            brackets=("(", "[")[closed[0]] + ")",
        )
    return Answer(
        "relation", text, trees=tuple(trees), label="\\le" if closed[0] else "<"
    )
