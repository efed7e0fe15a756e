r"""The final answer of a response, as a careful reader finds it: behind the thinking, in
the last box or answer tag, unless a later sentence says another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignkit.thinking import behind_thinking

READ = 20_000  # characters, from the end
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(\{)?")
_TAG = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_STATED = re.compile(
    r"(?:\b(?:final\s+)?answer\s*(?:\*\*|__)?\s*(?:is|:|=|was|equals|–|—|(?:should|must|would)\s+be)|####|(?m:^\s*#{1,6}\s*(?:final\s+)?answer\s*$)|答案(?:是|为|：|:))"
    r"\s*(?:\*\*|__)?[:\s]*",
    re.IGNORECASE,
)
_REVERSED = re.compile(
    r"(\$[^$\n]{1,200}\$|[-−]?\d[\d.,/]*)\s+is\s+the\s+(?:(?:final|correct|right)\s+)?answer",
    re.IGNORECASE,
)
_DENIED = re.compile(r"[\s$.)*]*(?:is|was)\s+(?:wrong|incorrect|not\b)", re.IGNORECASE)
_BOLD = re.compile(r"\W*\*\*([^*]{1,80})\*\*\W*")
_NAMED = re.compile(
    r"^(?:the|an?)\s+(?:ordered\s+)?(?:point|number|value|pair|set|interval|fraction)\s+",
    re.IGNORECASE,
)
# what may stand between the boxes of one list
_BETWEEN = re.compile(
    r"^[\s$,;&]*(?:\\?text\s*\{)?\s*(?:and|or|und|和|或|,|;|&)?\s*\}?[\s$,;]*"
    r"(?:[a-zA-Z]\s*=\s*)?[\s$]*$"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\\$*])|\n\s*\n|(?<=。)")
_SIGN = re.compile(
    r"(?:(?P<line>^|\n)|(?P<other>\S[ \t$]*))(?P<sign>[-−])(?P<gap>[ \t$]*)$"
)


@dataclass(frozen=True, slots=True)
class Final:
    """An answer as it stands in the response, and where it was found; `texts` are the
    boxes of a list.
    """

    texts: tuple[str, ...]
    place: str


def final_answer(response: str) -> Final | None:
    """None where the response states no answer."""
    text = behind_thinking(response)
    if text is None:
        return None
    text = text[-READ:]
    tags = [tag for tag in _TAG.finditer(text) if tag[1].strip()]
    if tags:
        inner = tags[-1][1]
        boxes = _last_boxes(inner)
        if boxes is None:
            answer = _stated(inner) or _line(inner, whole=True)
            return Final((answer,), "answer tag")
        return Final(boxes[0], "box in the answer tag")
    boxes = _last_boxes(text)
    if boxes is not None:
        contents, end = boxes
        later = _stated(text[end:])
        if later is not None and "boxed" not in later:
            return Final((later,), "a statement behind the box")
        return None if _DENIED.match(text[end:]) else Final(contents, "box")
    stated = _stated(text)
    if stated is not None:
        return Final((stated,), "stated answer")
    lines = [line for line in text.splitlines() if line.strip()]
    if (
        len(lines) == 1
        and len(lines[0]) <= 80
        and not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", lines[0])
    ):
        return Final((lines[0].strip(),), "the whole response")
    bold = _BOLD.fullmatch(lines[-1]) if lines else None
    if bold is not None and re.search(r"\d", bold[1]):
        return Final((bold[1].strip(),), "the last line, in bold")
    return None


def _line(text: str, *, whole: bool = False) -> str:
    """The text up to the end of its first sentence."""
    text = text.strip()
    if whole:
        return text
    text = text.splitlines()[0] if text else text
    return _SENTENCE.split(text)[0].strip().strip("*_!").strip()


def _stated(text: str) -> str | None:
    """What the last sentence that names the answer says it is."""
    turned = list(_REVERSED.finditer(text))
    for match in reversed(list(_STATED.finditer(text))):
        if turned and turned[-1].start() > match.start():
            break
        line = _line(text[match.end() :])
        if re.search(r"[\w\\∅∞]", line):
            return _NAMED.sub("", _without_reasons(line))
    return turned[-1][1] if turned else None


def _without_reasons(line: str) -> str:
    """`18 because 9*2=18` says 18."""
    return re.split(
        r"\s+(?:because|since|as|so|which|where|for)\s|\s+\((?=[A-Za-z]{3})", line
    )[0].strip(" .*")


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(begin, end, content) of each box that closes and is not empty; an inner one
    counts as part of its outer.
    """
    boxes: list[tuple[int, int, str]] = []
    closing_of = closings(text)
    for match in _BOX.finditer(text):
        if boxes and match.start() < boxes[-1][1]:
            continue
        begin = match.end()
        if match[1] is None:
            bare = re.match(r"\S+", text[begin:])
            content = bare[0].strip(".,$") if bare else ""
            end = begin + (bare.end() if bare else 0)
        else:
            closing = closing_of.get(begin - 1)
            if closing is None:
                continue
            content, end = text[begin:closing], closing + 1
        if content.strip():
            boxes.append(
                (match.start(), end, _sign(text[: match.start()]) + content.strip())
            )
    return boxes


def closings(text: str) -> dict[int, int]:
    """Where each brace closes."""
    found, opened = {}, []
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            found[opened.pop()] = brace.start()
    return found


def _sign(before: str) -> str:
    """A minus in front of the box; one that begins a line with a space is a bullet."""
    match = _SIGN.search(before[-20:])
    if match is None or (match["other"] is None and match["gap"].strip("$")):
        return ""
    operand = match["other"] is not None and re.search(r"[\w)}]\s*$", match["other"])
    return "" if operand else "-"


def _last_boxes(text: str) -> tuple[tuple[str, ...], int] | None:
    """The last box with those before it that form one list with it, and where it ends."""
    boxes = _boxes(text)
    if not boxes:
        return None
    members = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _BETWEEN.match(text[box[1] : members[0][0]]):
            break
        members.insert(0, box)
    return tuple(content for _, _, content in members), members[-1][1]
