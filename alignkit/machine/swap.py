"""Another object in the place of a library's own, for as long as it is needed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from alignkit.errors import WorkError

_IN_FORCE: set[tuple[str, str]] = set()


@contextmanager
def swapped(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """`module.name` is `value` inside, and the library's own again afterwards.

    Raises:
        WorkError: the module has no such name any more, or it is swapped already.
    """
    place = (module.__name__, name)
    if name not in vars(module):
        raise WorkError(
            f"{module.__name__} has no `{name}` in {_installed(module)}, which alignkit"
            " puts its own in the place of; install the tested version (see"
            " constraints.txt)"
        )
    if place in _IN_FORCE:
        raise WorkError(
            f"{module.__name__}.{name} is swapped already, and a second time would not"
            " bring back the library's own"
        )
    own = vars(module)[name]
    _IN_FORCE.add(place)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)
        _IN_FORCE.remove(place)


def _installed(module: ModuleType) -> str:
    package = module.__name__.partition(".")[0]
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package}, whose version is unknown"
