"""The proofs of a run, by the names of their claims (`alignkit.recipe.claims`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from alignkit.proofs.record import Finding, Proofs
from alignkit.recipe.claims import CLAIMS
from alignkit.train.proving.rows import prove_alone, prove_apart
from alignkit.train.proving.saved import (
    prove_adapter,
    prove_folder,
    prove_model,
    prove_tokenizer,
    prove_trial,
)
from alignkit.train.proving.subject import ROWS, Subject
from alignkit.train.proving.texts import prove_sampler, prove_text

__all__ = ["ROWS", "Subject", "prove_best", "prove_end", "prove_start"]

# None: there is nothing of the kind in this run
Test = Callable[[Subject], Finding | None]
START: Mapping[str, Test] = {
    "rows_alone": prove_alone,
    "rows_apart": prove_apart,
    "one_text": prove_text,
    "policy_sampler": prove_sampler,
    "trial_save": prove_trial,
}
END: Mapping[str, Test] = {
    "saved_model": prove_model,
    "saved_adapter": prove_adapter,
    "saved_tokenizer": prove_tokenizer,
}


def prove_start(subject: Subject, proofs: Proofs) -> None:
    """Before the first step, and before evals of the untrained model.

    Raises:
        InputError: what does not hold.
    """
    _prove(START, subject, proofs)
    proofs.require("start")


def prove_end(subject: Subject, proofs: Proofs) -> None:
    """Once the model is saved.

    Raises:
        WorkError: what does not hold; the model is there.
    """
    _prove(END, subject, proofs)
    if subject.config.best is None:
        proofs.absent.add("best_model")
    proofs.close()
    proofs.require("end")


def prove_best(subject: Subject, proofs: Proofs, folder: Path) -> None:
    """While the model that was just saved as the best is the live one.

    Raises:
        WorkError: the folder holds another model.
    """
    proofs.prove("best_model", lambda: prove_folder(subject, folder))
    proofs.require("end")


def _prove(tests: Mapping[str, Test], subject: Subject, proofs: Proofs) -> None:
    for name, test in tests.items():
        if subject.config.method in CLAIMS[name].methods:
            proofs.prove(name, functools.partial(test, subject))
