"""How a recipe key is declared: pydantic's field, and in `Annotated` what else is known
of it. Nothing about a key is known anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What is known of a key beside its type, default and description."""

    # The TRL field that takes the value as it is.
    trl: str = ""
    # Further TRL fields that this key decides: `train` cannot state them.
    owns: tuple[str, ...] = ()
    # The kind of plugin that the value names; of a map, that its keys name.
    plugin: str = ""
    # A local path, relative to the file that states it; `model` may be other things.
    path: Literal["", "file", "model"] = ""
    # Keys beside it to whose value it belongs: an inherited value goes when one of
    # them changes. The options of a plugin belong to the key that names the plugin.
    belongs_to: tuple[str, ...] = ()
    # Keys beside it that say the same in another way: an inherited value goes when one
    # of them is stated.
    instead_of: tuple[str, ...] = ()
    # A pipeline states it once for all its stages.
    shared: bool = False
    # Whether it decides the result. How a run is called and watched does not.
    identity: bool = True
    # Whether a trainer can be seen to use it also where it is left at its default.
    observed: bool = False
    # Whether it, or a key in it, decides how the model is trained: what is stated of
    # it is compared with what is in force (`alignkit.proofs.settings`).
    trains: bool = True
    # The name under which a transformers configuration holds it.
    config: str = ""
    # The dotted key that stated it in an earlier version.
    was: str = ""


class Section(BaseModel):
    """A map with fixed keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @property
    def stated(self) -> dict[str, Any]:
        """What a recipe states of it, without what is left out or deleted."""
        return dict(self.model_dump(exclude_none=True, exclude_unset=True))


class PluginSection(Section):
    """A map with some keys of the core's, beside the options of a plugin."""

    model_config = ConfigDict(extra="allow")

    # The key that names the plugin; where there is none, the map's own name does.
    selector: ClassVar[str] = ""

    @property
    def options(self) -> dict[str, Any]:
        """The plugin's options as the recipe states them."""
        return dict(self.model_extra or {})
