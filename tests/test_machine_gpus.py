"""What a process sees of the machine's GPUs."""

import stat
import sys

import pytest

from alignkit.machine import gpus

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*)
    echo "0, GPU-aa11, NVIDIA A100, 40960, 0, 8.0"
    echo "1, GPU-ab22, NVIDIA H100, 81559, 512, 9.0"
    echo "2, GPU-bc33, NVIDIA, the second, [N/A], [N/A], [N/A]" ;;
  *) echo "CUDA Version: 13.0" ;;
esac
"""
A100, H100, LAST = "NVIDIA A100", "NVIDIA H100", "NVIDIA, the second"


@pytest.fixture
def three_cards(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("stated", "names", "cards"),
    [
        (None, ["0", "1", "2"], [A100, H100, LAST]),
        ("", [], []),
        ("-1", [], []),
        ("1", ["1"], [H100]),
        ("2, 0", ["2", "0"], [LAST, A100]),
        ("0,-1,1", ["0"], [A100]),  # CUDA sees none behind it
        ("0,7,1", ["0", "7", "1"], [A100]),  # nor behind one that is not there
        ("GPU-ab22", ["GPU-ab22"], [H100]),
        ("GPU-b", ["GPU-b"], [LAST]),
        ("GPU-a", ["GPU-a"], []),  # two begin so
        ("MIG-7c", ["MIG-7c"], ["MIG-7c"]),
    ],
)
def test_the_variable_says_which_gpus_are_seen(
    three_cards, monkeypatch, stated, names, cards
):
    if stated is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", stated)
    assert gpus.visible() == names
    assert [card.name for card in gpus.cards()] == cards


def test_the_probe_does_not_import_torch(three_cards, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would fail
    assert len(gpus.cards()) == len(gpus.visible()) == 3
    assert gpus.driver() == "13.0"


def test_without_nvidia_smi_there_is_no_card(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,MIG-7c")
    assert gpus.cards() == []
    assert gpus.driver() == ""
