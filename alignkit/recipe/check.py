"""Everything that can be wrong with a resolved recipe, each fault with the place where
it was stated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from alignkit.errors import listing, nearest
from alignkit.recipe import rules, schema, trl
from alignkit.recipe.faults import EXPECTED, Faults, without
from alignkit.recipe.paths import is_file, is_folder
from alignkit.recipe.plugin_check import check_plugins, map_at, prompts_in
from alignkit.recipe.schema import walk
from alignkit.recipe.tree import Key, Node, Origin, describe, find

if TYPE_CHECKING:
    from alignkit.plugins import Registry


class Checker(Faults):
    """Checks one tree; `problems` then holds every fault, in the order of the file."""

    def __init__(self, tree: Node, registry: Registry | None = None) -> None:
        super().__init__(tree)
        self.registry = registry

    def run(self, config: Mapping[str, Any]) -> schema.Config | None:
        """Check all; the config when the schema found no fault."""
        found = self._validated(config, ())
        self._recipe(config, ())
        stages = config.get("stages")
        if isinstance(stages, dict):
            for name, stage in stages.items():
                if isinstance(stage, dict):
                    self._stage(name, stage, list(stages))
        return found

    def _validated(self, config: Mapping[str, Any], at: Key) -> Any:
        """The config of its method's class, None with a fault in it."""
        method = config.get("method")
        cls = schema.METHODS.get(method) if isinstance(method, str) else None
        if cls is None:
            self._method(method, at)
            rest = {k: v for k, v in config.items() if k != "method"}
            self._fits(walk.anything(), rest, at)
            return None
        if cls is not schema.Pipeline or not isinstance(config.get("stages"), dict):
            return self._fits(cls, config, at)
        stages = {
            name: self._validated(stage, ("stages", name))
            for name, stage in config["stages"].items()
            if isinstance(stage, dict)
        }
        whole = stages and all(stages.values()) and len(stages) == len(config["stages"])
        if whole or not config["stages"]:
            return self._fits(cls, {**config, "stages": stages}, at)
        self._fits(cls, {**config, "stages": None}, at, beside="stages")
        for name in config["stages"].keys() - stages.keys():
            given = describe(config["stages"][name])
            self.problem(("stages", name), f"given {given}, expected a map")
        return None

    def _method(self, method: object, at: Key) -> None:
        known = list(schema.METHODS)
        if method is None:
            text = f"is missing; one of {', '.join(known)}"
        else:
            text = f"given {describe(method)}, expected one of {', '.join(known)}"
            if isinstance(method, str):
                text += f"; {nearest(method, known)}"
        self.problem((*at, "method"), text)

    def _fits(
        self,
        cls: type[schema.Section],
        config: Mapping[str, Any],
        at: Key,
        beside: str | None = None,
    ) -> Any:
        """The config of a class; None with a fault, each told but those of the key
        `beside` which the rest is looked at.
        """
        try:
            return cls.model_validate(config)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if detail["loc"][:1] != (beside,):
                    self._schema_problem(detail, config.get("method"), at)
        return None

    def _schema_problem(self, detail: ErrorDetails, method: object, at: Key) -> None:
        key = tuple(str(part) for part in detail["loc"] if part != "[key]")
        kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
        if at and key[0] in walk.shared():
            return  # filled in from the top, where it is reported
        key = (*at, *key)
        if kind == "extra_forbidden":
            self.problem(key, self._unknown(key, method, at))
        elif kind == "missing" or (kind == "too_short" and not given):
            fault = "is missing" if kind == "missing" else "is empty"
            if method is not None and len(key) == len(at) + 1:
                fault += f"; method {method} needs it"
            self.problem(key, fault)
        elif kind == "literal_error":
            expected = context["expected"].replace("'", "").replace(" or ", ", ")
            text = f"given {describe(given)}, expected one of {expected}"
            if isinstance(given, str):
                text += f"; {nearest(given, expected.split(', '))}"
            self.problem(key, text)
        else:
            expected = EXPECTED.get(kind, detail["msg"]).format(**context)
            hint = ""
            if kind == "bool_type":
                hint = trl.yes_or_no(given)
            if given is None:
                hint = "; ~ (not null) deletes an inherited key"
            self.problem(key, f"given {describe(given)}, expected {expected}{hint}")

    def _unknown(self, key: Key, method: object, at: Key) -> str:
        if key == ("methods",):
            return "only an overlay (--with) has a block for each method"
        if key[-1] == "recipe" and key[:-2] == ("stages",):
            return "there is no such key; a stage names its recipe with extends: PATH"
        known = walk.declared(key)
        if known is None or method is None:
            section = walk.section_at(key[:-1])
            names = section.model_fields if section else ()
            return f"there is no such key; {nearest(key[-1], names)}"
        text = f"method {method} has no use for it; it is for {listing(known.methods)}"
        if self.nearest(key).kind == "overlay":
            text += f" (an overlay puts it under methods: {{{known.methods[0]}: …}})"
        if method == "pipeline":
            text += "; state it in a stage"
        return text

    def _recipe(self, config: Mapping[str, Any], at: Key) -> None:
        """What no single key can tell, for a recipe or a stage."""
        method = config.get("method")
        if method == "pipeline":
            return
        if not isinstance(method, str) or method not in schema.METHODS:
            self._fields_of_no_method(config, at)
        else:
            self._sections(config, at, method)
            if not self.recorded(at):
                self._rules(config, at)
        if self.registry is not None:
            for key, text in check_plugins(config, self.registry):
                self.problem((*at, *key), text)

    def _fields_of_no_method(self, config: Mapping[str, Any], at: Key) -> None:
        """What stands in `train`, where no method says whose fields these are."""
        known = {name for method in trl.CONFIGS for name in trl.fields(method)}
        for name in map_at(config, "train").keys() - known:
            text = f"TRL's configs have no such field; {nearest(name, known)}"
            self.problem((*at, "train", name), text)

    def _rules(self, config: Mapping[str, Any], at: Key) -> None:
        """What the rules say of it without the values that are at fault themselves."""
        size = len(at)
        faulty = [key[size:] for key in self.faulty if key[:size] == at]
        try:
            cls = schema.METHODS[config["method"]]
            sound = cls.model_validate(without(config, faulty))
        except ValidationError:
            return
        assert not isinstance(sound, schema.Pipeline)
        for key, text in rules.check(sound, rules.Facts(registry=self.registry)):
            self.problem((*at, *key), text)

    def _sections(self, config: Mapping[str, Any], at: Key, method: str) -> None:
        model, loss = map_at(config, "model"), map_at(config, "loss")
        path, lora = model.get("path"), model.get("lora")
        if isinstance(path, str) and path.startswith("stage:") and not at:
            self.problem(
                (*at, "model", "path"),
                f"given {path!r}, but only a stage of a pipeline can start from a"
                " stage",
            )
        for name, text in trl.check_lora(lora) if isinstance(lora, dict) else ():
            self.problem((*at, "model", "lora", *name.split(".")), text)
        quantize = model.get("quantize")
        for name, text in (
            trl.check_quantize(quantize) if isinstance(quantize, dict) else ()
        ):
            self.problem((*at, "model", "quantize", *name.split(".")), text)
        if loss.get("name", "trl") == "trl":
            options = {
                k: v for k, v in loss.items() if k not in schema.Loss.model_fields
            }
            for name, text in trl.check_loss(method, options):
                self.problem((*at, "loss", name), text)
        for key, prompt in prompts_in(config):
            if isinstance(prompt, dict) and len(prompt) != 1:
                self.problem(
                    (*at, *key), "expected a name, {file: PATH} or {template: TEXT}"
                )
            elif isinstance(prompt, dict) and isinstance(prompt.get("file"), str):
                file = Path(prompt["file"])
                if not is_file(file):
                    hint = nearest(
                        file.name,
                        (
                            [p.name for p in file.parent.glob("*")]
                            if is_folder(file.parent)
                            else []
                        ),
                    )
                    self.problem(
                        (*at, *key, "file"), f"there is no file {file}; {hint}"
                    )
        train = config.get("train", {})
        if isinstance(train, dict):
            effective = trl.effective(config, method)
            places: list[tuple[Key, Any]] = [(("train",), train)]
            by_kept = map_at(map_at(config, "expert_iteration"), "train_by_kept")
            places += [
                (("expert_iteration", "train_by_kept", kept), changed)
                for kept, changed in by_kept.items()
            ]
            for key, fields in places:
                if isinstance(fields, dict):
                    for field, text in trl.check(method, fields):
                        self.problem((*at, *key, *field.split(".")), text)
                    for field, text in trl.unread(method, fields, effective | fields):
                        self._unread((*at, *key, field), text)
            for key, text in trl.unread_keys(method, config, effective):
                self._unread((*at, *key), text)

    def _unread(self, key: Key, text: str) -> None:
        """A field that nothing reads."""
        if not self.recorded(key):
            self.problem(key, text)

    def _stage(self, name: str, stage: Mapping[str, Any], names: list[str]) -> None:
        if not re.fullmatch(r"[\w-]+", name):  # it names a folder
            self.problem(
                ("stages", name),
                "a stage's name may hold letters, digits, _ and - only",
            )
        if stage.get("method") == "pipeline":
            self.problem(
                ("stages", name, "method"), "a stage cannot be a pipeline itself"
            )
            return
        for key in ("name", *walk.shared()):
            if find(self.tree, ("stages", name, key)) is not None:
                text = (
                    "a stage is named by its key"
                    if key == "name"
                    else "stands once, at the top of the pipeline"
                )
                self.problem(("stages", name, key), text)
        self._recipe(stage, ("stages", name))
        path = map_at(stage, "model").get("path")
        earlier = names[: names.index(name)]
        if (
            isinstance(path, str)
            and path.startswith("stage:")
            and path.removeprefix("stage:") not in earlier
        ):
            hint = (
                nearest(path.removeprefix("stage:"), earlier)
                if earlier
                else "this is the first stage"
            )
            self.problem(
                ("stages", name, "model", "path"),
                f"{path!r} is no earlier stage; {hint}",
            )

    def deletion(self, key: Key, origin: Origin) -> None:
        """An overlay deleted what was not there: fine, if it is a key at all."""
        below = key[:2] if key[0] == "stages" else ()
        method = find(self.tree, (*below, "method"))
        section = walk.section_at(key[:-1])
        known: list[str] | None = None
        if (
            key[len(below) : -1] == ("train",)
            and method is not None
            and method.value in schema.METHODS
            and method.value != "pipeline"
        ):
            known = list(trl.fields(method.value))
        elif section is not None and not issubclass(section, schema.PluginSection):
            known = list(section.model_fields)
        if known is not None and key[-1] not in known:
            self.problem(
                key, f"there is no such key; {nearest(key[-1], known)}", origin
            )
