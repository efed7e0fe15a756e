"""`align plugins check`: no planted fault passes, no published loss is accused."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_losses import FAULTS, PUBLISHED

from alignkit.conformance import laboratory as tiny
from alignkit.conformance.losses import by_itself, check_loss


@pytest.fixture(scope="module")
def laboratory():
    with tiny.Laboratory() as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_by_its_property(laboratory, fault):
    loss = fault.loss
    checks = check_loss(loss, laboratory) if loss.like else by_itself(loss)
    failed = {c.check: c.detail for c in checks if c.ok is False}
    assert fault.check in failed, failed


@pytest.mark.parametrize("loss", PUBLISHED, ids=lambda loss: loss.name)
def test_a_published_loss_is_not_accused(laboratory, loss):
    checks = check_loss(loss, laboratory)
    assert not [check for check in checks if check.ok is False]


def test_the_page_of_losses_has_the_table_of_faults():
    page = (Path(__file__).parent.parent / "docs" / "losses.md").read_text()
    for fault in FAULTS:
        assert f"| {fault.name} | {fault.check} |" in page
