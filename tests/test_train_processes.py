"""Two processes give the gradients of one: the loss is divided by what all of them
hold.
"""

import subprocess
import sys

import pytest

pytest.importorskip("torch")

SCRIPT = """
import sys
import torch
from alignkit import kits, plugins
from alignkit.conformance import definition
from alignkit.conformance import laboratory as tiny
from alignkit.train.objective import Objective

registry = plugins.load([kits.builtin()])
with tiny.Laboratory() as laboratory:
    for method, name, normalize in (
        ("sft", "sft", "token"),
        ("sft", "sft", "sequence"),
        ("grpo", "grpo_clip", "token"),
        ("grpo", "grpo_clip", "constant"),
        ("rloo", "rloo", None),
        ("dpo", "dpo", None),
    ):
        constant = definition.CONSTANT if normalize == "constant" else None
        objective = Objective(registry.get("loss", name).value, normalize=normalize, constant=constant)
        found = laboratory.gradients(method, objective, tiny.Cut(2, 2))
        assert torch.distributed.get_world_size() == 2
        wrong = definition.gap(definition.definition(objective, method, laboratory), found, "the definition")
        if wrong:
            sys.exit(f"{method} {name} {normalize}: {wrong}")
"""


@pytest.mark.slow
def test_the_gradient_does_not_depend_on_the_number_of_processes(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
    ]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
