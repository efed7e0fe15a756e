"""Plugins by kind and name."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from alignkit import hookspecs, kits
from alignkit.errors import PluginError, nearest
from alignkit.plugins.plugin import KINDS, MEMBER, Plugin, guard


class Registry:
    """The plugins of the mounted kits, by kind and name."""

    def __init__(self, mounted: Sequence[kits.Kit]) -> None:
        self.kits = tuple(mounted)
        self.manager = pluggy.PluginManager("alignkit")
        self.manager.add_hookspecs(hookspecs)
        self._found: dict[str, dict[str, list[Plugin]]] = {kind: {} for kind in KINDS}

    def names(self, kind: str) -> list[str]:
        """Names of a kind, sorted; those that stand in several kits as `kit/name`."""
        names = []
        for name, plugins in self._found[kind].items():
            names += (
                [name] if len(plugins) == 1 else [f"{p.kit}/{name}" for p in plugins]
            )
        return sorted(names)

    def all(self, kind: str) -> list[Plugin]:
        """The plugins of a kind, sorted by name."""
        return [p for _, plugins in sorted(self._found[kind].items()) for p in plugins]

    def get(self, kind: str, name: str) -> Plugin:
        """The plugin of that name; `kit/name` picks one where several kits have it.

        Raises:
            PluginError: when there is none, or more than one.
        """
        family, colon, member = name.partition(":")
        if kind == "eval" and colon and self._found["eval_family"].get(family):
            return self._member(self.get("eval_family", family), name, member)
        kit, _, bare = name.rpartition("/")
        plugins = [
            p for p in self._found[kind].get(bare, []) if not kit or p.kit == kit
        ]
        if not plugins:
            raise PluginError(
                f"there is no {kind} '{name}'; {nearest(name, self.names(kind))}"
            )
        if len(plugins) > 1:
            both = " and ".join(str(p.file) for p in plugins)
            choose = " or ".join(f"'{p.kit}/{bare}'" for p in plugins)
            raise PluginError(
                f"{kind} '{name}' stands in several kits ({both}); write {choose}"
            )
        return plugins[0]

    def _member(self, family: Plugin, name: str, member: str) -> Plugin:
        if not MEMBER.fullmatch(member):
            raise PluginError(
                f"{name!r} names no eval; expected {family.name}:NAME of letters,"
                " digits, _ - . + ( )"
            )
        value = guard(family.file, family.value.make, member)
        return Plugin("eval", name, value, family.kit, family.file)

    def add(self, plugin: Plugin) -> None:
        """Register a plugin; the same name twice in one kit is an error."""
        same = self._found[plugin.kind].setdefault(plugin.name, [])
        for other in same:
            if other.kit == plugin.kit:
                raise PluginError(
                    f"{plugin.kind} '{plugin.name}' stands twice in kit '{plugin.kit}':"
                    f" {other.file} and {plugin.file}"
                )
        same.append(plugin)
