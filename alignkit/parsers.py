"""Read the answer out of a free-text response. Apart from `course`, whose import
loads torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A small letter counts where nothing is said on: `the answer is a pair of ions` names
# none.
_MMLU_SENTENCE = re.compile(
    r"\b(?i:answer\s+is)\s*:?\s*[*(\s]*(?:([A-D])\b|([a-d])(?=\s*(?:[.:,)*]|$)))"
)
_MMLU_LETTER = re.compile(r"\s*\(?([A-D])\)?\s*(?:[.:,)]|$)")
# A minus is a sign unless what stands before it makes it a subtraction.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-\u2212])?\$?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
)


def parse_mmlu_response(
    mmlu_example: Mapping[str, Any], model_output: str
) -> str | None:
    """The letter A to D that the output names (`The correct answer is B`, or the letter
    first), else None.
    """
    found = _MMLU_SENTENCE.search(model_output) or _MMLU_LETTER.match(model_output)
    return found[found.lastindex or 1].upper() if found else None


def parse_gsm8k_response(model_output: str) -> str | None:
    """The last number of the output as text, without thousands separators (`-1,234.5`
    -> `-1234.5`), else None.
    """
    found = _NUMBER.findall(model_output)
    return (
        found[-1].replace(",", "").replace("$", "").replace("\u2212", "-")
        if found
        else None
    )
