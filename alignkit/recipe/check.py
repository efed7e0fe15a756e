"""Everything that can be wrong with a resolved recipe, each fault with the place where
it was stated.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from alignkit.errors import nearest
from alignkit.recipe import rules, schema, trl
from alignkit.recipe.paths import is_file, is_folder
from alignkit.recipe.plugin_check import check_plugins, map_at, prompts_in
from alignkit.recipe.yaml import Key, Node, Origin, describe, find

if TYPE_CHECKING:
    from alignkit.plugins import Registry

_NEEDED = {
    "model": schema.TRAINED_METHODS,
    "data": schema.TRAINED_METHODS,
    "rewards": schema.ROLLOUT_METHODS,
    "expert_iteration": ("expert_iteration",),
    "stages": ("pipeline",),
}
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text of the form {pattern}",
}


class Checker:
    """Checks one tree; `problems` then holds every fault, in the order of the file."""

    def __init__(self, tree: Node, registry: Registry | None = None) -> None:
        self.tree = tree
        self.registry = registry
        self.found: list[tuple[Origin, str]] = []
        self.faulty: list[Key] = []

    def problem(self, key: Key, text: str, origin: Origin | None = None) -> None:
        """A fault at a key, placed at the nearest thing that was stated."""
        at = self._nearest(key) if origin is None else origin
        self.faulty.append(key)
        self.found.append(
            (at, f"{at}: {'.'.join(key)}: {text}" if key else f"{at}: {text}")
        )

    @property
    def problems(self) -> list[str]:
        """The faults, each once, by file, line and column."""
        ordered = sorted(
            self.found, key=lambda pair: (pair[0].file, pair[0].line, pair[0].column)
        )
        return list(dict.fromkeys(text for _, text in ordered))

    def _nearest(self, key: Key) -> Origin:
        for length in range(len(key), 0, -1):
            node = find(self.tree, key[:length])
            if node is not None:
                return node.origin
        return self.tree.origin

    def run(
        self, config: Mapping[str, Any], *, ruled: bool = True
    ) -> schema.RecipeConfig | None:
        """Check all; the config when the schema found no fault. `ruled`: by the rules too."""
        found = None
        try:
            found = schema.RecipeConfig.model_validate(config)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._schema_problem(detail)
        self._recipe(config, ())
        stages = config.get("stages")
        if isinstance(stages, dict):
            for name, stage in stages.items():
                if isinstance(stage, dict):
                    self._stage(name, stage, list(stages))
        if ruled:
            self._rules(config)
        for at, recipe in self._trained(config):
            for key, text in (
                check_plugins(recipe, self.registry)
                if self.registry is not None
                else ()
            ):
                self.problem((*at, *key), text)
        return found

    @staticmethod
    def _trained(config: Mapping[str, Any]) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        """The recipe, or each stage of a pipeline, that trains."""
        stages = config.get("stages")
        recipes: list[tuple[Key, Any]] = [((), config)]
        recipes += [
            (("stages", name), stage)
            for name, stage in (stages if isinstance(stages, dict) else {}).items()
        ]
        for at, recipe in recipes:
            if (
                isinstance(recipe, dict)
                and recipe.get("method") in schema.TRAINED_METHODS
            ):
                yield at, recipe

    def _rules(self, config: Mapping[str, Any]) -> None:
        """What the rules say of the recipe without the values that are at fault by themselves."""
        try:
            sound = schema.RecipeConfig.model_validate(_without(config, self.faulty))
        except ValidationError:
            return
        recipes: list[tuple[Key, Any]] = [((), sound)]
        recipes += [
            (("stages", name), stage) for name, stage in (sound.stages or {}).items()
        ]
        for at, recipe in recipes:
            needed = (
                name for name, methods in _NEEDED.items() if recipe.method in methods
            )
            if recipe.method != "pipeline" and all(
                getattr(recipe, name) for name in needed
            ):
                for key, text in rules.check(
                    recipe, rules.Facts(registry=self.registry)
                ):
                    self.problem((*at, *key), text)

    def _schema_problem(self, detail: ErrorDetails) -> None:
        key = tuple(str(part) for part in detail["loc"] if part != "[key]")
        kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
        if key[:1] == ("stages",) and len(key) > 2 and key[2] in schema.SHARED_KEYS:
            return  # filled in from the top, where it is reported
        if kind == "extra_forbidden":
            self.problem(key, self._unknown(key))
        elif kind == "missing":
            if key[-1] == "method" and len(key) == 1:
                self.problem(key, f"is missing; one of {', '.join(schema.METHODS)}")
            else:
                self.problem(key, "is missing")
        elif kind == "literal_error":
            expected = context["expected"].replace("'", "").replace(" or ", ", ")
            hint = (
                f"; {nearest(given, expected.split(', '))}"
                if isinstance(given, str)
                else ""
            )
            self.problem(
                key, f"given {describe(given)}, expected one of {expected}{hint}"
            )
        else:
            expected = (
                _EXPECTED[kind].format(**context)
                if kind in _EXPECTED
                else detail["msg"]
            )
            hint = trl.yes_or_no(given) if kind == "bool_type" else ""
            if given is None:
                hint = "; ~ (not null) deletes an inherited key"
            self.problem(key, f"given {describe(given)}, expected {expected}{hint}")

    def _unknown(self, key: Key) -> str:
        if key == ("methods",):
            return "only an overlay (--with) has a block for each method"
        if key[-1] == "recipe" and key[:-2] == ("stages",):
            return "there is no such key; a stage names its recipe with extends: PATH"
        section = schema.section_at(key[:-1])
        return (
            "there is no such key;"
            f" {nearest(key[-1], section.model_fields if section else ())}"
        )

    def _recipe(self, config: Mapping[str, Any], at: Key) -> None:
        """What depends on the method, for a recipe or a stage."""
        method = config.get("method")
        if method not in schema.METHODS:
            return
        for name, methods in schema.USED_BY.items():
            if name in config and method not in methods:
                text = (
                    f"method {method} has no use for it; it is for {', '.join(methods)}"
                )
                if self._nearest((*at, name)).kind == "overlay":
                    text += f" (an overlay puts it under methods: {{{methods[0]}: …}})"
                if method == "pipeline":
                    text += "; state it in a stage"
                self.problem((*at, name), text)
        for name, methods in _NEEDED.items():
            if method in methods and not config.get(name):
                self.problem((*at, name), f"is missing; method {method} needs it")
        if method != "pipeline":
            self._sections(config, at, str(method))

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
                    for field, text in trl.check(method, fields, effective | fields):
                        self.problem((*at, *key, *field.split(".")), text)

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
        for key in ("name", *schema.SHARED_KEYS):
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
        section = schema.section_at(key[:-1])
        known: list[str] | None = None
        if (
            key[len(below) : -1] == ("train",)
            and method is not None
            and method.value in schema.TRAINED_METHODS
        ):
            known = list(trl.fields(method.value))
        elif section is not None and not issubclass(section, schema.PluginSection):
            known = list(section.model_fields)
        if known is not None and key[-1] not in known:
            self.problem(
                key, f"there is no such key; {nearest(key[-1], known)}", origin
            )


def _without(config: Mapping[str, Any], keys: Sequence[Key]) -> dict[str, Any]:
    """A copy that lacks some keys; a list lacks all of its items where one is named."""
    sound = copy.deepcopy(dict(config))
    for key in keys:
        section: Any = sound
        for part in key[:-1]:
            below = section.get(part) if isinstance(section, dict) else None
            if not isinstance(below, dict):
                if isinstance(section, dict):
                    section.pop(part, None)
                break
            section = below
        else:
            if key:
                section.pop(key[-1], None)
    return sound
