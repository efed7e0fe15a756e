"""Swapping a name inside a library."""

from __future__ import annotations

import types

import pytest
import trl.trainer.grpo_trainer as home

from alignkit.errors import WorkError
from alignkit.machine.swap import swapped


@pytest.fixture
def library():
    module = types.ModuleType("trl.made_up")
    module.Part = "its own"
    return module


def test_a_swapped_name_is_the_librarys_own_again_also_after_an_error(library):
    with pytest.raises(KeyError), swapped(library, "Part", "ours"):
        assert library.Part == "ours"
        raise KeyError
    assert library.Part == "its own"
    with swapped(library, "Part", "ours again"):
        assert library.Part == "ours again"


def test_a_name_that_is_gone_is_named_with_its_module_and_the_installed_version(
    library,
):
    del library.Part
    with (
        pytest.raises(WorkError, match=r"trl\.made_up has no `Part` in trl \d+\.\d+"),
        swapped(library, "Part", "ours"),
    ):
        pass
    assert not hasattr(library, "Part")


def test_a_second_swap_of_a_name_is_refused_and_leaves_the_first_in_force(library):
    library.Other = "its own"
    with swapped(library, "Part", "ours"):
        with (
            pytest.raises(WorkError, match="swapped already"),
            swapped(library, "Part", "twice"),
        ):
            pass
        assert library.Part == "ours"
        with swapped(library, "Other", "ours"):
            assert library.Other == "ours"
    assert (library.Part, library.Other) == ("its own", "its own")


def test_the_name_that_trainers_swap_is_there_in_the_installed_trl():
    assert "VLLMGeneration" in vars(home)
