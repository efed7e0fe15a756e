"""Which proofs of a run a recipe may waive."""

from __future__ import annotations

from collections.abc import Iterator

from alignkit.errors import nearest
from alignkit.recipe.claims import CLAIMS, claims
from alignkit.recipe.rules.rule import Facts, Problem
from alignkit.recipe.schema import ExpertIteration, Trained


def waived_one_by_one(config: Trained, facts: Facts) -> Iterator[Problem]:
    """A proof is waived by its name, with the reason that the report will show."""
    known = CLAIMS if isinstance(config, ExpertIteration) else claims(config.method)
    for name, reason in config.waive.items():
        if name not in known:
            yield (
                ("waive", name),
                f"is no proof of {config.method}; {nearest(name, known)}",
            )
        elif not reason.strip():
            yield ("waive", name), "say why: the report shows the reason"


RULES = (waived_one_by_one,)
