"""Whether the data are what they should be."""

from __future__ import annotations

import math
from collections import Counter

from alignkit.checks.finding import Finding, Lacking, check
from alignkit.checks.rewards import ONLINE, rollouts_of
from alignkit.records import Record


@check(*ONLINE)
def trained_on_the_test(record: Record) -> Finding | None:
    """Questions of an eval were trained on, more of them than chance explains.

    Two sets drawn from a space of S questions share some by chance. S is estimated from
    the repetitions among the trained questions, as in the birthday problem.
    """
    import numpy as np

    rollouts = rollouts_of(record)
    if not record.evals:
        raise Lacking("an eval of this run")
    # a row of a further epoch is no coincidence
    drawn = set(zip(rollouts.source, rollouts.question, strict=True))
    asked, draws = Counter(question for _, question in drawn), len(drawn)
    pairs = sum(count * (count - 1) / 2 for count in asked.values())
    space = draws * (draws - 1) / 2 / pairs if pairs else math.inf
    last = {each.name: each for each in record.evals}
    for name, each in last.items():
        rows = list(each.samples())
        questions = {hash(str(row["prompt"])): str(row["id"]) for row in rows}
        shared = questions.keys() & asked.keys()
        chance = 1 - math.exp(-draws / space)
        expected = len(questions) * chance
        spread = math.sqrt(expected * (1 - chance))
        if len(shared) < 3 or len(shared) <= expected + 4 * spread + 1:
            continue
        some = sorted(questions[key] for key in shared)[:3]
        return Finding(
            "look",
            f"Questions of {name} were trained on",
            f"{len(shared)} of its {len(questions)} questions are among the {draws}"
            f" trained prompts; {expected:.1f} are expected by chance; such as"
            f" {', '.join(some)}",
            "train on another split, or take them out of data.train",
            rollouts.show(np.isin(rollouts.array("question"), list(shared))),
        )
    return None
