r"""What an answer says: a number with its unit, a list, a tuple or interval, a union, a
set, a matrix, an equation, a ratio, a time, a letter of choice, words.
"""

from __future__ import annotations

import re

from alignkit.grading.answer.formula import formula
from alignkit.grading.answer.quantity import quantity
from alignkit.grading.answer.relations import equation, inequality
from alignkit.grading.answer.shapes import (
    ALTERNATIVE,
    NAMES,
    RELATION,
    Answer,
    Hedged,
    bracketed,
    members,
    split,
)
from alignkit.grading.answer.spelling import spelled
from alignkit.grading.answer.tree import Tree, Unreadable, number
from alignkit.grading.latex_text import words

EMPTY_WORDS = words("""
    nosolution nosolutions norealsolution norealsolutions none emptyset
    theemptyset nosuchnumber doesnotexist dne undefined nosuchx
    """)
# and, or: in \text or plain; other \text is passed over
_JOIN = re.compile(
    r"\\text\s*\{\s*,?\s*(?:and|or|&|und|和|或)\s*,?\s*\}|(?P<other>\\text\s*\{[^{}]*\})"
    r"|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])"
)
_TO = re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|to)\s*(?=\d)")
_BUILDER = re.compile(
    r"^\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[|:]\s*(.*)\\\}$", re.DOTALL
)
_REALS = re.compile(r"^\\mathbb\s*\{?R\}?$")
_WORD = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{3,}(?![a-zA-Z])")
_CHOICE = re.compile(r"\(?([A-J])\)?(?:\s*[:.)]\s*.*)?$", re.DOTALL)
_TIME = re.compile(
    r"(\d{1,2}):([0-5]\d)\s*(?:\\text\s*\{\s*)?([ap])?\.?\s*(?:m\.?)?\s*\}?$",
    re.IGNORECASE,
)
_MATRIX = re.compile(
    r"^\\begin\{([bpvBV]?matrix|smallmatrix|array)\}(?:\{[lcr|\s]*\})?(.*)\\end\{\1\}$",
    re.DOTALL,
)
_BASE = re.compile(r"^([0-9A-Fa-f]+)_\{?(\d{1,2})\}?$")

_LABEL = re.compile(
    r"^(?:[a-zA-Z]|\\[a-zA-Z]+|[a-zA-Z]{2,}|\\text\s*\{[^{}]*\})(?:_\{?[\w\\]+\}?)?'*"
    r"(?:\([^()]*\))?$"
)


def read(text: str) -> Answer:
    """What a text says, by the first reading that it has.

    Raises:
        Unreadable: none. Hedged: it names alternatives.
    """
    return _read(_unwrapped(spelled(text)), 0)


def _unwrapped(text: str) -> str:
    r"""Without a `\text{…}` around the whole, nor one that only introduces."""
    whole = re.fullmatch(r"\\text\s*\{([^{}]*)\}", text)
    if whole:
        return spelled(whole[1])
    introduced = re.fullmatch(r"\\text\s*\{([^{}\d]*)\}\s*(.+)", text, re.DOTALL)
    if introduced and re.match(r"[-+\d(\[\\$.]", introduced[2]):
        word = introduced[1].strip().strip(":").lower()
        choice = re.match(r"\(?[a-j]\)", word)
        if not choice and word not in ("and", "not") and not ALTERNATIVE.search(word):
            return introduced[2]
    return text


def _read(text: str, depth: int) -> Answer:
    if depth > 6:
        raise Unreadable("lists within lists")
    if not text:
        raise Unreadable("nothing stands there")
    plain = re.sub(r"\\text\s*\{([^{}]*)\}|\W", r"\1", text).lower()
    if text in ("\\emptyset", r"\{\}", r"\{ \}") or plain in EMPTY_WORDS:
        return Answer("empty", text)
    inner = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip()
    if letter := _CHOICE.match(inner):
        tree = Tree("symbol", inner) if len(inner) == 1 else None
        return Answer("choice", inner, tree, label=letter[1])
    if matrix := _MATRIX.match(text):
        return _matrix(text, matrix[2], depth)
    if time := _TIME.match(text):
        half = (time[3] or "").lower()
        return Answer(
            "time", text, trees=(number(time[1]), number(time[2])), label=half
        )
    if _REALS.match(text):
        return _read("(-\\infty,\\infty)", depth + 1)
    if builder := _BUILDER.match(text):
        return _read(builder[2].strip(), depth + 1)
    if re.search(r"(?<!_)\d\s+\d(?!\d*/\d)", text):
        raise Hedged("two numbers side by side")
    text = _TO.sub(":", text)
    joined = _JOIN.sub(lambda m: m["other"] or ",", text)
    for parts in (split(joined, ";"), members(joined)):
        if len(parts) > 1:
            return _several(text, parts, "", depth)
    if named := _labelled(text):
        return _with_label(*named, text, depth)
    if len(parts := split(text, "\\cup")) > 1:
        return Answer(
            "union", text, items=tuple(_read(part, depth + 1) for part in parts)
        )
    if enclosed := bracketed(text):
        brackets, content = enclosed
        parts = members(content)
        if len(parts) > 1 or brackets == "{}":
            return _several(text, parts, brackets, depth)
    if RELATION.search(text):
        return inequality(text)
    if "=" in text:
        return equation(text)
    if ":" in text:
        return _ratio(text)
    if "\\pm" in text:
        signs = [text.replace("\\pm", sign) for sign in "+-"]
        return _several(text, signs, "", depth)
    return _value(text)


def _several(text: str, parts: list[str], brackets: str, depth: int) -> Answer:
    items: list[Answer] = []
    for part in parts:
        item = _read(_unwrapped(part.strip()), depth + 1)
        bare = item.kind == "several" and not item.brackets
        items += item.items if bare else [item]
    if not items:
        raise Unreadable("nothing between the brackets")
    unnamed = not any(item.label for item in items[1:])
    if brackets in ("", "{}") and items[0].label and unnamed:
        # n = 1, 2, 3
        items[0] = _unlabelled(items[0])
    intervals = all(item.kind == "several" and item.brackets for item in items)
    if intervals and not brackets and RELATION.search(text):
        return Answer("union", text, items=tuple(items))
    return Answer("several", text, items=tuple(items), brackets=brackets)


def _unlabelled(item: Answer) -> Answer:
    return Answer(
        item.kind if item.kind != "equation" else "value", item.text, item.tree, item.unit,
        item.items, item.brackets, item.trees,
    )  # fmt: skip


def _matrix(text: str, content: str, depth: int) -> Answer:
    rows = []
    for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", content):
        if row.strip():
            cells = tuple(_read(cell.strip(), depth + 1) for cell in row.split("&"))
            rows.append(Answer("several", row, items=cells, brackets="row"))
    if not rows:
        raise Unreadable("an empty matrix")
    return Answer("matrix", text, items=tuple(rows))


def _labelled(text: str) -> tuple[str, str] | None:
    r"""`x = 5`, `f(x) = …`, `x \in (0, 1)`: the name, and what it is."""
    for sign in ("\\in ", "="):
        head, *rest = split(text, sign)
        if rest and _LABEL.match(head.strip()) and not RELATION.search(text):
            return head.strip(), sign.strip().join(rest).strip()
    value, *name = split(text, "=")
    reversed_name = len(name) == 1 and re.fullmatch(r"\s*[a-zA-Z]\s*", name[0])
    if reversed_name and not re.search(r"[a-zA-Z]", value):
        return name[0].strip(), value.strip()  # 5 = x
    return None


def _with_label(label: str, content: str, text: str, depth: int) -> Answer:
    """What a name stands for; with variables in it, an equation as well."""
    item = _read(content, depth + 1)
    trees: tuple[Tree, ...] = ()
    try:
        trees = (formula(label), formula(split(content, "=")[-1]))
    except Unreadable:
        if item.kind not in ("value", "equation"):
            trees = ()
    return Answer(
        item.kind, text, item.tree, item.unit, item.items, item.brackets,
        item.trees if item.kind in ("ratio", "time") else trees, label,
    )  # fmt: skip


def _ratio(text: str) -> Answer:
    return Answer("ratio", text, trees=tuple(formula(part) for part in text.split(":")))


def _value(text: str) -> Answer:
    """A formula or number, with a unit or without; else a choice or words."""
    if base := _BASE.match(text):
        return Answer("value", text, number(base[1]), label=f"base {base[2]}")
    measured = quantity(text)
    if measured is not None:
        return measured
    inner = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip()
    word = _WORD.search(inner)
    if word and word[0].lower() not in NAMES and not re.search(r"[\d\\^=+]", inner):
        if ALTERNATIVE.search(inner) and " " in inner and len(inner.split()) > 4:
            raise Hedged("the words name alternatives")
        # abc is a word and a product
        product = formula(inner) if inner.isalpha() and len(inner) <= 4 else None
        return Answer("words", inner, product)
    return Answer("value", text, formula(text))
