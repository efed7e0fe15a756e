"""The proofs of one run: carried out, timed, waived one by one, and written to
proofs.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignkit.errors import InputError, WorkError
from alignkit.recipe.claims import CLAIMS, When, claims
from alignkit.run.files import read_json, write_json

if TYPE_CHECKING:
    from alignkit.run import Run

Outcome = Literal["proven", "failed", "waived", "unproven"]
VERSION = 1
FILE = "proofs.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a proof saw. Without `fault` and `unproven` the claim holds.

    `value` is what was measured, `tolerance` what it may be at most. `note`: what else
    a reader should know, such as what was changed so that the claim holds. `cure`: what
    to do about the fault.
    """

    value: float | None = None
    tolerance: float | None = None
    unit: str = ""
    note: str = ""
    fault: str = ""
    cure: str = ""
    unproven: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One entry of proofs.json."""

    name: str
    when: When
    says: str
    outcome: Outcome
    value: float | None = None
    tolerance: float | None = None
    unit: str = ""
    note: str = ""
    fault: str = ""
    cure: str = ""
    why: str = ""  # it is waived or unproven
    seconds: float = 0.0


class Proofs:
    """The proofs of a run, which stop it where one fails.

    `waived`: the recipe's `waive`. A resumed run keeps what it proved before.
    """

    def __init__(self, run: Run, method: str, waived: Mapping[str, str]) -> None:
        self.run = run
        self.method = method
        self.waived = waived
        self.proofs = {proof.name: proof for proof in read_proofs(run.folder)}
        self.absent: set[str] = set()  # what this run has nothing of

    def prove(self, name: str, test: Callable[[], Finding | None]) -> None:
        """Carry out one proof and write it down; `require` stops the run. None of a test:
        there is nothing of the kind in this run.

        A proof that is waived is carried out all the same, and its number shown.
        """
        claim, started = CLAIMS[name], time.perf_counter()
        finding = test()
        if finding is None:
            self.absent.add(name)
            return
        outcome: Outcome = "proven"
        why = finding.unproven
        if finding.unproven:
            outcome = "unproven"
        elif finding.fault:
            outcome = "failed"
        if name in self.waived and outcome != "proven":
            outcome, why = "waived", self.waived[name]
        self.proofs[name] = Proof(
            name=name,
            when=claim.when,
            says=claim.says,
            outcome=outcome,
            value=finding.value,
            tolerance=finding.tolerance,
            unit=finding.unit,
            note=finding.note,
            fault=finding.fault,
            cure=finding.cure,
            why=why,
            seconds=round(time.perf_counter() - started, 3),
        )
        self._write()

    def require(self, when: When, *, begun: bool = False) -> None:
        """Stop where a proof of this time failed; `begun`: something is trained already.

        Raises:
            InputError: before the first step, so nothing is lost but the loading.
            WorkError: later; all that was trained is kept.
        """
        failed = [
            proof
            for proof in self.proofs.values()
            if proof.outcome == "failed" and proof.when == when
        ]
        if not failed:
            return
        faults = "\n".join(map(_told, failed))
        if when == "start" and not begun:
            raise InputError(faults)
        raise WorkError(f"{faults}\nAll that was trained is kept in {self.run.folder}")

    def close(self) -> None:
        """Write down also what never came to be proven."""
        for name, claim in claims(self.method).items():
            if name not in self.proofs and name not in self.absent:
                self.proofs[name] = Proof(
                    name=name,
                    when=claim.when,
                    says=claim.says,
                    outcome="unproven",
                    why="the run never came to it",
                )
        self._write()

    def _write(self) -> None:
        if not self.run.writes:
            return
        order = [name for name in CLAIMS if name in self.proofs]
        rows = [asdict(self.proofs[name]) for name in order]
        write_json(self.run.folder / FILE, {"version": VERSION, "proofs": rows})


def _told(proof: Proof) -> str:
    measured = ""
    if proof.value is not None:
        measured = f" ({proof.value:.3g} {proof.unit}".rstrip()
        if proof.tolerance is not None:
            measured += f", at most {proof.tolerance:.3g}"
        measured += ")"
    cure = f" {proof.cure}" if proof.cure else ""
    waive = f" To go on without this proof: waive: {{{proof.name}: REASON}}"
    return f"{proof.name}: {proof.fault}{measured}.{cure}{waive}"


def read_proofs(folder: Path) -> list[Proof]:
    """Those of a run folder, none where it has no proofs.json.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        return [_read(row) for row in read_json(path)["proofs"]]
    except (TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def _read(row: Mapping[str, Any]) -> Proof:
    known = Proof.__dataclass_fields__
    return Proof(**{name: row[name] for name in known if name in row})
