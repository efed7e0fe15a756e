"""The identity of a plugin: the code that decides what it does, and the packages."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit.errors import PluginError
from alignkit.provenance import syntax

if TYPE_CHECKING:
    from alignkit.plugins import Plugin

VERSION = 2  # 0.1 hashed the plugin's own file alone
_CORE = Path(__file__).parents[1]
_KITS = "alignkit.kits"
# What of alignkit belongs to a plugin: the definitions that it reaches through the
# public names that it imports, as far as they compute (these rooms, and any other
# public name). How models, data and answers are had, and how it is written down,
# belongs to the run, whose fingerprint has alignkit's version; marks and errors make no
# value.
_COMPUTING = re.compile(r"alignkit\.(course|functional|grading|benchmarks|types)\b")
_MARKS = ("alignkit.hookspecs", "alignkit.errors")
# What its packages require decides too; of others, such as torch, their version does.
_WITH_REQUIREMENTS = "alignkit.grading"


@dataclass(frozen=True)
class Identity:
    """What decides what a plugin does.

    `code`: a hash for each file, `packages`: a version for each distribution.
    `not_covered` names what it also uses, and what may change unseen.
    """

    code: Mapping[str, str]
    packages: Mapping[str, str]
    not_covered: tuple[str, ...]

    @property
    def parts(self) -> dict[str, str]:
        """All that is compared, by name."""
        return {**self.code, **{f"package {n}": v for n, v in self.packages.items()}}

    @property
    def sha256(self) -> str:
        """One hash for it, with the version of this kind of identity."""
        return hash_of(self.parts)


def hash_of(parts: Mapping[str, object]) -> str:
    """`2:` and the sha256 of parts by name."""
    text = json.dumps(parts, sort_keys=True)
    return f"{VERSION}:{hashlib.sha256(text.encode()).hexdigest()}"


def identity(plugin: Plugin) -> Identity:
    """The identity of a plugin.

    It is the closure of what its file imports within its kit, anywhere in the code; the
    code of alignkit's that it uses; and the versions of the packages that these import.

    Raises:
        PluginError: a file of the closure cannot be read, or is no Python.
    """
    walk = _Walk(f"{_KITS}.{plugin.kit}", plugin.file.parents[1])
    walk.whole(plugin.file, walk.root, walk.kit)
    return walk.identity()


def identity_of_function(function: Callable[..., object]) -> Identity | None:
    """The identity of the kit's file that defines a function; None for any other."""
    if not function.__module__.startswith(f"{_KITS}."):
        return None
    file = Path(str(sys.modules[function.__module__].__file__))
    walk = _Walk(".".join(function.__module__.split(".")[:3]), file.parents[1])
    walk.whole(file, walk.root, walk.kit)
    return walk.identity()


class _Walk:
    """The closure of one plugin, while it is followed."""

    def __init__(self, kit: str, root: Path) -> None:
        self.kit = kit
        self.root = root
        self.needed: dict[str, set[int]] = {}  # by file, the places of its statements
        self.sources: dict[str, syntax.Source] = {}
        self.packages: dict[str, bool] = {}  # whether its requirements count too
        self.not_covered: dict[str, None] = {}

    def identity(self) -> Identity:
        code = {}
        for label, places in sorted(self.needed.items()):
            statements = self.sources[label].statements
            lines = [statements[place] for place in sorted(places)]
            imports = sorted(s.text for s in lines if s.node is None)
            texts = [*imports, *(s.text for s in lines if s.node is not None)]
            # what a kit is called decides nothing
            text = "\n".join(texts).replace(self.kit, "kit")
            code[label] = hashlib.sha256(text.encode()).hexdigest()[:16]
        versions: dict[str, str] = {}
        for name, deep in self.packages.items():
            versions |= _versions(name, deep)
        return Identity(code, dict(sorted(versions.items())), tuple(self.not_covered))

    def whole(self, file: Path, root: Path, kit: str) -> None:
        """A file of a kit, with all that it does."""
        inside = file.relative_to(root)
        label = inside.as_posix()
        if kit != self.kit:
            label = f"{kit}: {label}"
        if label in self.sources:
            return
        package = ".".join([kit, *inside.parts[:-1]])
        source = self.sources[label] = syntax.read(file, package)
        for opened in source.opened:
            self.not_covered[f"{opened}, which {label} opens"] = None
        self._need(label, range(len(source.statements)), package="")

    def _need(self, label: str, places: Iterable[int], package: str) -> None:
        """Statements of a file, and all that they reach. `package`: the module, of
        alignkit's; none for a kit's.
        """
        source = self.sources[label]
        known = self.needed.setdefault(label, set())
        queue = [place for place in places if place not in known]
        known.update(queue)
        while queue:
            statement = source.statements[queue.pop()]
            for place, other in enumerate(source.statements):
                if place not in known and other.binds & statement.reads:
                    known.add(place)
                    queue.append(place)
            for one in statement.imports:
                self._follow(one, label, package)

    def _follow(self, one: syntax.Import, label: str, importer: str) -> None:
        attributes = self.sources[label].attributes_of(one.bound)
        top = one.module.partition(".")[0]
        if one.module.startswith(f"{_KITS}."):
            self._kit(one, label)
        elif top != "alignkit":
            if not importer or _COMPUTING.match(importer):
                self._package(top, deep=importer.startswith(_WITH_REQUIREMENTS))
        elif one.name is None:
            for name in attributes:
                self._core(one.module, name, importer, ())
        else:
            self._core(one.module, one.name, importer, attributes)

    def _core(
        self, module: str, name: str, importer: str, attributes: Iterable[str]
    ) -> None:
        """A name of one of alignkit's modules; `attributes` of it are used, where it is
        a module.
        """
        file = _CORE.joinpath(*module.split(".")[1:])
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        if module in _MARKS or not file.is_file():
            return
        source = syntax.read(file, module)
        if name in source.homes:
            self._core(source.homes[name], name, "", attributes)
        elif name not in source.bound:
            for attribute in attributes:
                self._core(f"{module}.{name}", attribute, importer, ())
        elif not importer or _COMPUTING.match(module) or name in _public():
            label = f"alignkit/{file.relative_to(_CORE).as_posix()}"
            self.sources[label] = source
            places = [
                place
                for place, statement in enumerate(source.statements)
                if name in statement.binds or statement.runs
            ]
            self._need(label, places, module)

    def _kit(self, one: syntax.Import, label: str) -> None:
        """A module of this kit, or of another one that is mounted."""
        _, _, name, *parts = one.module.split(".")
        kit = f"{_KITS}.{name}"
        root = self.root
        if kit != self.kit:
            if kit not in sys.modules:
                return
            root = Path(next(iter(sys.modules[kit].__path__)))
        elif not one.tried and not _is_there(root.joinpath(*parts), one.name):
            raise PluginError(
                f"{root / label}: imports {'.'.join([*parts, one.name or ''])}, which its"
                " kit does not have"
            )
        parts += filter(None, [one.name])  # a module in a package, or a name in one
        for end in range(len(parts)):
            for module in (
                root.joinpath(*parts[:end], f"{parts[end]}.py"),
                root.joinpath(*parts[: end + 1], "__init__.py"),
            ):
                if module.is_file():
                    self.whole(module, root, kit)

    def _package(self, top: str, deep: bool) -> None:
        if top in sys.stdlib_module_names:
            return
        if distribution := _distribution(top):
            self.packages[distribution] = deep or self.packages.get(distribution, False)
        elif place := _loose(top):
            self.not_covered[f"{place}, which belongs to no package"] = None
        else:
            self.packages[top] = False  # whether it is there may decide


def _is_there(module: Path, name: str | None) -> bool:
    """Whether a module of a kit can be imported, and where it is a plain folder, a
    module of that name in it.
    """
    if module.with_suffix(".py").is_file() or (module / "__init__.py").is_file():
        return True
    return module.is_dir() and (name is None or _is_there(module / name, None))


def _public() -> Mapping[str, str]:
    return syntax.read(_CORE / "__init__.py", "alignkit").homes


@functools.cache
def _distribution(top: str) -> str | None:
    """The distribution that a top-level module belongs to."""
    try:
        return str(metadata.distribution(top).metadata["Name"])
    except metadata.PackageNotFoundError:
        return next(iter(metadata.packages_distributions().get(top, ())), None)


def _loose(top: str) -> str | None:
    """Where a module lies that belongs to no distribution."""
    spec = None if top in ("__main__", "") else importlib.util.find_spec(top)
    if spec is None:
        return None
    return spec.origin or next(iter(spec.submodule_search_locations or ()), None)


@functools.cache
def _versions(distribution: str, deep: bool) -> dict[str, str]:
    """The version of a distribution; of a deep one also of all that it requires."""
    versions: dict[str, str] = {}
    queue = [distribution]
    while queue:
        name = queue.pop()
        try:
            about = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name == distribution:
                versions[name] = "not installed"
            continue
        name = str(about.metadata["Name"])
        if name not in versions:
            versions[name] = about.version
            required = [
                re.split(r"[^\w.-]", line, maxsplit=1)[0]
                for line in about.requires or ()
                if "extra ==" not in line
            ]
            queue += required if deep else []
    return versions
