"""The letter of a choice that a reply commits itself to."""

import re
import unicodedata

# what may stand around a letter: LaTeX, Markdown, quotes, "option"
_DRESS = (
    r"(?:\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{|[\s*_\"'“”‘’`$(\[{]"
    r"|\b(?:option|choice|letter|answer|the|is)\b|:)*"
)
_STATED = re.compile(
    r"\b(?:answer|choice|option)\s*(?:\*\*|__)?\s*(?:is|was|would be|should be|must be|:|=)"
    rf"(?P<dress>{_DRESS})",
    re.IGNORECASE,
)
_LETTER = re.compile(r"([A-D])(?![A-Za-z0-9])")
_SMALL = re.compile(r"([a-d])(?=\s*(?:[^\w\s]|$))")
_HEAD = re.compile(rf"^{_DRESS}([A-Da-d])[ \t]*(?:[^\w\s]|\n|$)", re.IGNORECASE)
_BOX = re.compile(rf"\\boxed\s*\{{{_DRESS}([A-Da-d])(?![A-Za-z])")
_NOT = re.compile(r"\bnot\b", re.IGNORECASE)
_INSTEAD = re.compile(r"\b(?:but|it is|it's|rather|instead)\b", re.IGNORECASE)
_MORE = re.compile(
    r"^[\s*.)\]\"']*(?:,|/|&|\band\b|\bor\b|\.)[\s*(\[\"']*[A-D](?![A-Za-z])"
)
_ARTICLE = re.compile(
    r"^ (?!because|since|as|and|or|so|for|which|by|with|due|based)[a-z]"
)
_NEXT = re.compile(
    r"\n\s*(?:#+\s*query|question|q|human|user)\s*\d*\s*:", re.IGNORECASE
)


def committed_letter(reply: str) -> str | None:
    """`A` to `D`: of the last sentence that names the answer, the last box, or at the
    beginning; `several` where that names more than one; None where none is named.
    """
    text = unicodedata.normalize("NFKC", _NEXT.split(reply)[0])
    stated = [_read(text, match) for match in _STATED.finditer(text)]
    named = [letter for letter in stated if letter]
    if named:
        return named[-1]
    if boxes := _BOX.findall(text):
        return str(boxes[-1]).upper()
    head = _HEAD.match(text)
    if head is None or stated:
        return None
    several = _MORE.match(text[head.end(1) :])
    return "several" if several else head[1].upper()


def _read(text: str, stated: re.Match[str]) -> str | None:
    """The letter of one statement."""
    begin = stated.end()
    sentence = re.split(r"\n\s*\n", text[begin : begin + 200])[0]
    if _NOT.match(sentence):
        instead = _INSTEAD.search(sentence)
        return _named(sentence[instead.end() :]) if instead else None
    letter = _LETTER.match(sentence) or _SMALL.match(sentence)
    if letter is None:
        return None
    rest = sentence[letter.end() :]
    if letter[1] == "A" and _ARTICLE.match(rest) and "*" not in stated["dress"]:
        instead = _INSTEAD.search(sentence)
        return _named(sentence[instead.end() :]) if instead else None
    return "several" if _MORE.match(rest) else letter[1].upper()


def _named(text: str) -> str | None:
    letter = re.match(rf"{_DRESS}([A-D])(?![A-Za-z])", text)
    return letter[1] if letter else None
