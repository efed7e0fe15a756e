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
from alignkit.recipe import schema, trl
from alignkit.recipe.paths import is_file, is_folder
from alignkit.recipe.plugin_check import check_plugins, map_at, prompts_in
from alignkit.recipe.schema import walk
from alignkit.recipe.yaml import Key, Node, Origin, describe, find

if TYPE_CHECKING:
    from alignkit.plugins import Registry

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

    def problem(self, key: Key, text: str, origin: Origin | None = None) -> None:
        """A fault at a key, placed at the nearest thing that was stated."""
        at = self._nearest(key) if origin is None else origin
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
        self._fits(walk.anything(), {**config, "stages": None}, at)
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
        self, cls: type[schema.Section], config: Mapping[str, Any], at: Key
    ) -> Any:
        try:
            return cls.model_validate(config)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
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
            needed = f"; method {method} needs it" if len(key) == len(at) + 1 else ""
            self.problem(key, f"is missing{needed}")
        elif kind == "literal_error":
            expected = context["expected"].replace("'", "").replace(" or ", ", ")
            text = f"given {describe(given)}, expected one of {expected}"
            if isinstance(given, str):
                text += f"; {nearest(given, expected.split(', '))}"
            self.problem(key, text)
        else:
            expected = _EXPECTED.get(kind, detail["msg"]).format(**context)
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
        if self._nearest(key).kind == "overlay":
            text += f" (an overlay puts it under methods: {{{known.methods[0]}: …}})"
        if method == "pipeline":
            text += "; state it in a stage"
        return text

    def _recipe(self, config: Mapping[str, Any], at: Key) -> None:
        """What no single key can tell, for a recipe or a stage."""
        method = config.get("method")
        if method not in schema.METHODS or method == "pipeline":
            return
        self._sections(config, at, str(method))
        if self.registry is not None:
            for key, text in check_plugins(config, str(method), self.registry):
                self.problem((*at, *key), text)

    def _sections(self, config: Mapping[str, Any], at: Key, method: str) -> None:
        model, loss, generation = (
            map_at(config, name) for name in ("model", "loss", "generation")
        )
        path, build, lora = model.get("path"), map_at(model, "build"), model.get("lora")
        is_map = isinstance(config.get("model"), dict)
        if is_map and (path is None) == (model.get("build") is None):
            given = "both are given" if path is not None else "neither is given"
            self.problem((*at, "model"), f"needs either path or build; {given}")
        if isinstance(path, str) and path.startswith("stage:") and not at:
            self.problem(
                (*at, "model", "path"),
                f"given {path!r}, but only a stage of a pipeline can start from a"
                " stage",
            )
        hidden, heads = build.get("hidden_size", 64), build.get("heads", 4)
        if (
            isinstance(hidden, int)
            and isinstance(heads, int)
            and heads > 0
            and hidden % (2 * heads)
        ):
            text = (
                f"{hidden} is not divisible by 2 x heads ({heads}); each head needs an"
                " even size"
            )
            self.problem((*at, "model", "build", "hidden_size"), text)
        for name, text in trl.check_lora(lora) if isinstance(lora, dict) else ():
            self.problem((*at, "model", "lora", *name.split(".")), text)
        quantize = model.get("quantize")
        for name, text in (
            trl.check_quantize(quantize) if isinstance(quantize, dict) else ()
        ):
            self.problem((*at, "model", "quantize", name), text)
        if quantize and not lora:
            self.problem(
                (*at, "model", "quantize"),
                "quantized weights cannot be trained; add model.lora (QLoRA)",
            )
        if (
            quantize
            and method in ("grpo", "rloo")
            and generation.get("engine", "auto") != "transformers"
        ):
            text = (
                "vLLM cannot take over weights in training that are quantized; say"
                " generation.engine: transformers"
            )
            self.problem((*at, "model", "quantize"), text)
        if "constant" in loss and loss.get("normalize") != "constant":
            self.problem(
                (*at, "loss", "constant"), "is read only with normalize: constant"
            )
        self._stock_loss(config, at, method)
        self._validation(config, at, method)
        vllm = map_at(generation, "vllm")
        if generation.get("engine") == "transformers":
            unread = [
                ("train", name)
                for name in map_at(config, "train")
                if str(name).startswith("vllm_")
            ]
            for place in [("generation", "vllm")] * bool(vllm) + unread:
                self.problem(
                    (*at, *place), "is read only where the engine is vllm or auto"
                )
        if (vllm.get("mode") == "server") != ("server" in vllm):
            text = (
                "is read only with mode: server"
                if "server" in vllm
                else "mode: server needs the server's URL"
            )
            self.problem((*at, "generation", "vllm", "server"), text)
        low, high = (
            generation.get("min_new_tokens", 0),
            generation.get("max_new_tokens", 1024),
        )
        if isinstance(low, int) and isinstance(high, int) and low > high:
            self.problem(
                (*at, "generation", "min_new_tokens"),
                f"{low} is more than max_new_tokens ({high})",
            )
        for name, stated in map_at(config, "evals").items():
            if (
                isinstance(stated, dict)
                and "split" in stated
                and "split" in map_at(stated, "data")
            ):
                self.problem(
                    (*at, "evals", name, "data", "split"),
                    "the eval's own split says it already",
                )
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
            stated = loss.get("name")
            own_loss = stated if isinstance(stated, str) else None
            places: list[tuple[Key, Any]] = [(("train",), train)]
            by_kept = map_at(map_at(config, "expert_iteration"), "train_by_kept")
            places += [
                (("expert_iteration", "train_by_kept", kept), changed)
                for kept, changed in by_kept.items()
            ]
            for key, fields in places:
                if isinstance(fields, dict):
                    for field, text in trl.check(
                        method, fields, own_loss, "advantage" in config
                    ):
                        self.problem((*at, *key, *field.split(".")), text)

    def _validation(self, config: Mapping[str, Any], at: Key, method: str) -> None:
        """`data.validation` and `train.eval_strategy` belong together: one alone is
        read by nothing, or fails.
        """
        stated = map_at(config, "data").get("validation") is not None
        if method == "expert_iteration":
            return
        strategy = map_at(config, "train").get("eval_strategy", "no")
        if stated and strategy == "no":
            text = (
                "is read only with train.eval_strategy: steps or epoch; for benchmarks"
                " use evals"
            )
            self.problem((*at, "data", "validation"), text)
        if not stated and strategy in ("steps", "epoch"):
            self.problem(
                (*at, "train", "eval_strategy"),
                "needs data.validation; for benchmarks use evals",
            )

    def _stock_loss(self, config: Mapping[str, Any], at: Key, method: str) -> None:
        """`loss: {name: trl}`, or none: TRL's own loss, which has its own normalisation
        and advantages.
        """
        loss, advantage = map_at(config, "loss"), map_at(config, "advantage")
        if loss.get("name", "trl") != "trl":
            return
        for key in ("normalize", "constant"):
            if key in loss:
                text = (
                    "is for loss plugins; TRL's own loss normalises by its loss_type"
                    f" ({key}: ~ takes it back)"
                )
                self.problem((*at, "loss", key), text)
        options = {k: v for k, v in loss.items() if k not in schema.Loss.model_fields}
        for name, text in trl.check_loss(method, options):
            self.problem((*at, "loss", name), text)
        if not advantage:
            return
        if not loss:
            self.problem(
                (*at, "advantage"),
                "is read beside a loss; state one, such as loss: {name: trl}",
            )
        elif (
            method != "grpo"
            or advantage.get("name") != "group"
            or set(advantage) - {"name", "scale"}
        ):
            text = (
                "TRL's own loss has its own advantages; beside it only {name: group,"
                " scale: …} of grpo (or ~)"
            )
            self.problem((*at, "advantage"), text)

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
