"""What a run proved of itself, in words and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignkit.proofs.record import Outcome, Proof, read_proofs
from alignkit.report import markdown

# where the runs inside a run lie
_INSIDE = ("stages/*", "iterations/*/sft")
_ORDER: tuple[Outcome, ...] = ("failed", "waived", "unproven", "proven")


def proofs_of(folder: Path) -> dict[str, list[Proof]]:
    """Those of a run and of the runs inside it, by where they lie."""
    inside = [path for pattern in _INSIDE for path in sorted(folder.glob(pattern))]
    named = {str(path.relative_to(folder)): path for path in inside}
    known = {name: read_proofs(path) for name, path in {"": folder, **named}.items()}
    return {name: proofs for name, proofs in known.items() if proofs}


def line(proofs: Mapping[str, Sequence[Proof]]) -> str:
    """Such as `proofs: 9 proven, 1 waived (rows_alone: its experts)`; what is not
    proven is named.
    """
    every = [proof for each in proofs.values() for proof in each]
    counts = Counter(proof.outcome for proof in every)
    parts = []
    for outcome in reversed(_ORDER):
        if counts[outcome]:
            of_it = [proof for proof in every if proof.outcome == outcome]
            told = dict.fromkeys(f"{p.name}: {p.why or p.fault}" for p in of_it)
            named = "" if outcome == "proven" else f" ({'; '.join(told)})"
            parts.append(f"{counts[outcome]} {outcome}{named}")
    return f"proofs: {', '.join(parts)}" if parts else ""


def section(proofs: Mapping[str, Sequence[Proof]]) -> list[str]:
    """Lines of Markdown: every proof with what was measured, what not, and why."""
    if not proofs:
        return []
    rows = []
    for name, each in proofs.items():
        for p in sorted(each, key=lambda proof: _ORDER.index(proof.outcome)):
            value = "" if p.value is None else f"{p.value:.3g} {p.unit}".strip()
            allowed = "" if p.tolerance is None else f"{p.tolerance:.3g}"
            said = [part for part in (p.fault, p.why, p.note) if part]
            cells = (name, p.says, p.outcome, value, allowed, f"{p.seconds:g}")
            rows.append((*cells, "; ".join(said)))
    head = ("run", "claim", "outcome", "measured", "allowed", "seconds", "")
    return ["", "## What this run proved of itself", "", *markdown.table(head, rows)]


def waived(folder: Path) -> dict[str, str]:
    """The proofs that a run went without, with the reasons."""
    every = [proof for each in proofs_of(folder).values() for proof in each]
    return {p.name: p.why for p in every if p.outcome == "waived"}
