"""The record of a run's proofs: outcomes, waivers, what stops a run, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignkit.errors import InputError, WorkError
from alignkit.proofs.record import Finding, Proofs, read_proofs
from alignkit.recipe.claims import CLAIMS, claims
from alignkit.run import Run

FAULT = Finding(
    value=0.8, tolerance=1e-4, unit="nats", fault="they differ", cure="Do this."
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "r", tmp_path / "r")


def test_a_failed_proof_stops_the_start_with_number_cure_and_waiver(run: Run):
    proofs = Proofs(run, "grpo", {})
    proofs.prove("rows_alone", lambda: FAULT)
    with pytest.raises(InputError) as caught:
        proofs.require("start")
    told = str(caught.value)
    for part in (
        "rows_alone",
        "they differ",
        "0.8 nats",
        "0.0001",
        "Do this.",
        "waive",
    ):
        assert part in told


def test_a_proof_that_fails_after_training_names_the_folder(run: Run):
    proofs = Proofs(run, "sft", {})
    proofs.prove("saved_model", lambda: FAULT)
    proofs.require("start")  # another time's
    with pytest.raises(WorkError, match=str(run.folder)):
        proofs.require("end")


def test_a_waived_proof_is_carried_out_and_keeps_its_number(run: Run):
    proofs = Proofs(run, "sft", {"rows_alone": "experts"})
    proofs.prove("rows_alone", lambda: FAULT)
    proofs.require("start")
    (proof,) = read_proofs(run.folder)
    assert (proof.outcome, proof.why, proof.value) == ("waived", "experts", 0.8)


def test_what_was_waived_and_holds_is_proven(run: Run):
    proofs = Proofs(run, "sft", {"rows_alone": "experts"})
    proofs.prove("rows_alone", lambda: Finding(value=0.0, tolerance=1e-4))
    assert read_proofs(run.folder)[0].outcome == "proven"


def test_every_claim_of_the_method_has_an_outcome_at_the_end(run: Run):
    proofs = Proofs(run, "grpo", {})
    proofs.prove("rows_alone", lambda: Finding(unproven="no two rows"))
    proofs.close()
    written = json.loads((run.folder / "proofs.json").read_text())["proofs"]
    assert [entry["name"] for entry in written] == list(claims("grpo"))
    assert {entry["outcome"] for entry in written} == {"unproven"}


def test_a_resumed_run_keeps_what_was_proven_before(run: Run):
    Proofs(run, "sft", {}).prove("rows_alone", lambda: Finding(value=0.0))
    proofs = Proofs(run, "sft", {})
    proofs.prove("rows_apart", lambda: Finding(value=0.0))
    names = [proof.name for proof in read_proofs(run.folder)]
    assert names == ["rows_alone", "rows_apart"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"proofs": [1]}', "{"])
def test_a_damaged_record_is_refused_with_its_path(run: Run, text: str):
    (run.folder / "proofs.json").write_text(text)
    with pytest.raises(InputError, match=r"proofs\.json"):
        read_proofs(run.folder)


def test_claims_are_sentences():
    for claim in CLAIMS.values():
        assert claim.says[0].islower()
        assert not claim.says.endswith(".")
