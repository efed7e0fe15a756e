"""Plugins: what one is, its options, the registry, and loading from kits."""

from alignkit.plugins.loading import load, load_kit
from alignkit.plugins.options import (
    bind,
    check_options,
    effective_options,
    typed_options,
)
from alignkit.plugins.plugin import KINDS, NAME, RESERVED, Plugin
from alignkit.plugins.registry import Registry

__all__ = [
    "KINDS",
    "NAME",
    "RESERVED",
    "Plugin",
    "Registry",
    "bind",
    "check_options",
    "effective_options",
    "load",
    "load_kit",
    "typed_options",
]
