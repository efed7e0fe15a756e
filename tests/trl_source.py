"""Which fields of a TRL config a trainer can read under given settings, found in TRL's source.

The source is parsed, not run. Every read of `args.X`, or of what `__init__` keeps of it as
`self.Y`, is noted with the conditions it stands under: branches, calls, the class it was handed to.
A read is possible unless one of its conditions is known to be false.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNKNOWN = object()
Guard = tuple[ast.expr, bool]  # an expression, and whether it must be true or false
Guards = tuple[Guard, ...]
COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
# Called by transformers for an evaluation alone.
EVALUATION = ("_get_eval_sampler", "get_eval_dataloader")
EVALUATES = ast.parse("eval_dataset is not None", mode="eval").body
# Text alone, no tools, no images, no code of the user's: what alignkit hands to a trainer.
FACTS = {
    "tools": None, "environments": None, "environment_factories": None, "_is_vlm": False, "_is_vision_dataset": False,
    "rollout_func": None, "compute_loss_func": None, "images": None, "is_conversational()": False,
}  # fmt: skip


@dataclass
class Read:
    """One place where a field is read."""

    name: str
    line: int
    guards: Guards


@dataclass
class Class:
    """A class of TRL's: what it keeps of the config, what it reads, what it calls."""

    node: ast.ClassDef
    entry: Guards = ()  # conditions under which it is made
    bound: Mapping[str, ast.expr] = field(
        default_factory=dict
    )  # what its maker hands over, by name
    aliases: dict[str, list[tuple[ast.expr, Guards]]] = field(default_factory=dict)


def package(*parts: str) -> Path:
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


@functools.cache
def classes(file: Path) -> dict[str, ast.ClassDef]:
    return {
        n.name: n
        for n in ast.parse(file.read_text()).body
        if isinstance(n, ast.ClassDef)
    }


def own_fields(method: str) -> set[str]:
    """The fields that TRL's config for a method adds to transformers' own, or states anew."""
    (config,) = classes(package("trainer", f"{method}_config.py")).values()
    return {n.target.id for n in config.body if isinstance(n, ast.AnnAssign)}


class Reads:
    """The reads of one trainer."""

    def __init__(self, method: str) -> None:
        (node,) = [
            c for name, c in classes(package("trainer", f"{method}_trainer.py")).items()
            if name == f"{method.upper()}Trainer"
        ]  # fmt: skip
        self.reads: list[tuple[Class, Read]] = []
        self.helpers = {
            **classes(package("trainer", "callbacks.py")),
            **classes(package("generation", "vllm_generation.py")),
            **{
                n: c
                for n, c in classes(package("trainer", f"{method}_trainer.py")).items()
                if n.startswith("_")
            },
        }
        self._class(Class(node))
        (config,) = classes(package("trainer", f"{method}_config.py")).values()
        for function in config.body:
            if isinstance(function, ast.FunctionDef):
                self._config(config, function)

    def _config(self, config: ast.ClassDef, function: ast.FunctionDef) -> None:
        """What the config itself reads of its fields, which are its own attributes."""
        for node, guards in statements(function.body, ()):
            # `self.x = f(self.x)` only tidies a value up.
            target = (
                attribute_of(node.targets[0], "self")
                if isinstance(node, ast.Assign)
                else None
            )
            for part in own_expressions(node):
                for (_, name), line, inner in mentions(part, guards):
                    if name == target:
                        continue
                    self.reads.append((Class(config), Read(name, line, inner)))

    def possible(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether a field may be read under these settings of all fields."""
        return any(
            all(
                holds(value(test, owner, settings), wanted)
                for test, wanted in read.guards
            )
            for owner, read in self.reads
            if read.name == name
        )

    def all_possible(self, settings: Mapping[str, Any]) -> set[str]:
        """The fields that may be read under these settings of all fields."""
        known: dict[tuple[int, int], Any] = {}

        def found(test: ast.expr, owner: Class) -> Any:
            key = (id(test), id(owner))
            if key not in known:
                known[key] = value(test, owner, settings)
            return known[key]

        return {
            read.name
            for owner, read in self.reads
            if all(holds(found(test, owner), wanted) for test, wanted in read.guards)
        }

    def conditions(self) -> set[str]:
        """The fields that some read hangs on."""
        tests = {
            id(test): (test, owner)
            for owner, read in self.reads
            for test, _ in read.guards
        }
        found = set()
        for test, owner in tests.values():
            for (kind, name), _, _ in mentions(test, ()):
                kept = (
                    [expression for expression, _ in owner.aliases.get(name, ())]
                    if kind == "self"
                    else []
                )
                found |= {name} | {n for e in kept for (_, n), _, _ in mentions(e, ())}
        return found

    def base_fields(self) -> set[str]:
        """The fields of transformers' own config, which its trainer reads too."""
        spec = importlib.util.find_spec("transformers")
        assert spec is not None and spec.origin is not None
        config = classes(Path(spec.origin).parent / "training_args.py")[
            "TrainingArguments"
        ]
        return {n.target.id for n in config.body if isinstance(n, ast.AnnAssign)}

    def makes(self, node: ast.expr) -> bool:
        """Whether the expression makes an object of a class that is followed, which reads what it is handed."""
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in self.helpers
        )

    def names(self) -> set[str]:
        return {read.name for _, read in self.reads}

    def _class(self, owner: Class) -> None:
        methods = {n.name: n for n in owner.node.body if isinstance(n, ast.FunctionDef)}
        walker = Walker(self, owner, methods)
        if "__init__" in methods:
            walker.keep(methods["__init__"])
        for method in methods.values():
            walker.function(method)
        walker.finish()


class Walker:
    """Walks the methods of one class, with the conditions that hold at each place."""

    def __init__(
        self, reads: Reads, owner: Class, methods: Mapping[str, ast.FunctionDef]
    ) -> None:
        self.whole, self.owner, self.methods = reads, owner, methods
        self.found: list[tuple[str, Read]] = []  # the method it stands in
        self.calls: dict[str, list[tuple[str, Guards]]] = {}
        self.made: list[tuple[str, Class]] = []

    def keep(self, init: ast.FunctionDef) -> None:
        """What `__init__` keeps as attributes: `self.beta = args.beta`."""
        for node, guards in statements(init.body, ()):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                name = attribute_of(node.targets[0], "self")
                if name is not None and not self.whole.makes(node.value):
                    kept = Bind(self.owner.bound).visit(
                        ast.parse(ast.unparse(node.value), mode="eval").body
                    )
                    self.owner.aliases.setdefault(name, []).append((kept, guards))

    def function(self, method: ast.FunctionDef) -> None:
        for node, guards in statements(method.body, ()):
            for part in own_expressions(node):
                self.expression(part, guards, method.name, node)

    def expression(
        self, node: ast.expr, guards: Guards, method: str, statement: ast.stmt
    ) -> None:
        kept = (
            method == "__init__"
            and isinstance(statement, ast.Assign)
            and is_self(statement.targets[0])
        )
        for (source, plain), line, inner in (
            () if self.whole.makes(node) else mentions(node, guards)
        ):
            if source == "config" and not kept:
                self.found.append((method, Read(plain, line, inner)))
            elif source == "self" and not kept:
                for expression, alias_guards in self.owner.aliases.get(plain, ()):
                    for (kind, copied), _, more in mentions(expression, ()):
                        if kind == "config":
                            self.found.append(
                                (
                                    method,
                                    Read(copied, line, (*inner, *alias_guards, *more)),
                                )
                            )
        for call, inner in calls(node, guards):
            self.call(call, inner, method)

    def call(self, call: ast.Call, guards: Guards, method: str) -> None:
        name = attribute_of(call.func, "self")
        if name in self.methods:
            self.calls.setdefault(name, []).append((method, guards))
        made = call.func.id if isinstance(call.func, ast.Name) else ""
        if made in self.whole.helpers and method == "__init__":
            node = self.whole.helpers[made]
            bound = {
                k.arg: resolve(k.value, self.owner) for k in call.keywords if k.arg
            }
            self.made.append((method, Class(node, guards, bound)))

    def finish(self) -> None:
        for method, read in self.found:
            for before in self._ways(method, ()):
                guards = tuple(
                    bind_guards((*self.owner.entry, *before, *read.guards), self.owner)
                )
                self.whole.reads.append(
                    (self.owner, Read(read.name, read.line, guards))
                )
        for method, made in self.made:
            for before in self._ways(method, ()):
                entry = tuple(
                    resolve_guards(
                        (*self.owner.entry, *before, *made.entry), self.owner
                    )
                )
                self.whole._class(Class(made.node, entry, made.bound))

    def _ways(self, method: str, seen: tuple[str, ...]) -> Iterator[Guards]:
        """The conditions of each chain of calls that leads to a method."""
        callers = [
            (m, g) for m, g in self.calls.get(method, ()) if m not in (*seen, method)
        ]
        if not callers:
            yield ((EVALUATES, True),) if method in EVALUATION else ()
            return
        for caller, guards in callers:
            for before in self._ways(caller, (*seen, method)):
                yield (*before, *guards)


class Bind(ast.NodeTransformer):
    """Puts what a maker hands over in the place of the parameter."""

    def __init__(self, bound: Mapping[str, ast.expr]) -> None:
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.bound.get(node.id, node)


def bind_guards(guards: Guards, owner: Class) -> Iterator[Guard]:
    for test, wanted in guards:
        yield (
            (
                Bind(owner.bound).visit(ast.parse(ast.unparse(test), mode="eval").body)
                if owner.bound
                else test
            ),
            wanted,
        )


def resolve(node: ast.expr, owner: Class) -> ast.expr:
    """An expression in terms of the config alone, where an attribute was kept once and without conditions."""
    name = attribute_of(node, "self")
    kept = owner.aliases.get(name or "", [])
    return (
        resolve(kept[0][0], owner)
        if len(kept) == 1 and attribute_of(kept[0][0], "self") != name
        else node
    )


class Resolve(ast.NodeTransformer):
    def __init__(self, owner: Class) -> None:
        self.owner = owner

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return resolve(node, self.owner)


def resolve_guards(guards: Guards, owner: Class) -> Iterator[Guard]:
    for test, wanted in guards:
        yield (
            Resolve(owner).visit(ast.parse(ast.unparse(test), mode="eval").body),
            wanted,
        )


def attribute_of(node: ast.AST, base: str) -> str | None:
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == base
    ):
        return node.attr
    return None


def is_self(node: ast.expr) -> bool:
    return attribute_of(node, "self") is not None


def config_field(node: ast.AST) -> str | None:
    """X of `args.X` and `self.args.X`."""
    if not isinstance(node, ast.Attribute):
        return None
    if isinstance(node.value, ast.Name) and node.value.id == "args":
        return node.attr
    return node.attr if attribute_of(node.value, "self") == "args" else None


def statements(
    body: list[ast.stmt], guards: Guards
) -> Iterator[tuple[ast.stmt, Guards]]:
    """Every statement with its conditions; after `if X: return` the rest stands under not X."""
    for node in body:
        if isinstance(node, ast.If):
            if not only_complains(node):
                yield node, guards
            yield from statements(node.body, (*guards, (node.test, True)))
            yield from statements(node.orelse, (*guards, (node.test, False)))
            if (
                isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue)
                and not node.orelse
            ):
                guards = (*guards, (node.test, False))
            continue
        yield node, guards
        for part in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, part, []), guards)
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body, guards)


def only_complains(node: ast.If) -> bool:
    """A check of the config: it raises or warns, and changes nothing."""
    return not node.orelse and all(
        isinstance(s, ast.Raise)
        or (
            isinstance(s, ast.Expr)
            and isinstance(s.value, ast.Call)
            and ast.unparse(s.value.func) in COMPLAINTS
        )
        for s in node.body
    )


COMPLAINTS = ("warnings.warn", "logger.warning", "logger.warning_once")


def own_expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, without those of the statements in it."""
    for name, child in ast.iter_fields(node):
        if name in ("body", "orelse", "finalbody", "handlers") and not isinstance(
            child, ast.expr
        ):
            continue
        for one in child if isinstance(child, list) else [child]:
            if isinstance(one, ast.withitem):
                yield one.context_expr
            elif isinstance(one, ast.expr):
                yield one


def parts(node: ast.AST, guards: Guards) -> Iterator[tuple[ast.AST, Guards]]:
    """Every node below with its conditions inside the expression: `a and b`, `b if a else c`."""
    yield node, guards
    if isinstance(node, ast.BoolOp):
        before = guards
        for operand in node.values:
            yield from parts(operand, before)
            before = (*before, (operand, isinstance(node.op, ast.And)))
    elif isinstance(node, ast.IfExp):
        yield from parts(node.test, guards)
        yield from parts(node.body, (*guards, (node.test, True)))
        yield from parts(node.orelse, (*guards, (node.test, False)))
    else:
        for child in ast.iter_child_nodes(node):
            yield from parts(child, guards)


def mentions(
    node: ast.expr, guards: Guards
) -> Iterator[tuple[tuple[str, str], int, Guards]]:
    """(("config", field) or ("self", attribute), line, conditions)."""
    for part, inner in parts(node, guards):
        name = config_field(part)
        if name is not None and isinstance(part.ctx, ast.Load):
            yield ("config", name), part.lineno, inner
        elif (name := attribute_of(part, "self")) is not None and isinstance(
            part.ctx, ast.Load
        ):
            yield ("self", name), part.lineno, inner


def calls(node: ast.expr, guards: Guards) -> Iterator[tuple[ast.Call, Guards]]:
    for part, inner in parts(node, guards):
        if isinstance(part, ast.Call):
            yield part, inner


def holds(found: Any, wanted: bool) -> bool:
    return found is UNKNOWN or bool(found) is wanted


def value(
    node: ast.expr, owner: Class, settings: Mapping[str, Any], depth: int = 0
) -> Any:
    """The value of an expression under the settings, or UNKNOWN."""
    again = functools.partial(value, owner=owner, settings=settings, depth=depth + 1)
    if depth > 30:
        return UNKNOWN
    if isinstance(node, ast.Constant):
        return node.value
    if (name := config_field(node)) is not None:
        return settings.get(name, UNKNOWN)
    if (name := attribute_of(node, "self")) is not None:
        if name in FACTS:
            return FACTS[name]
        if not owner.aliases and name in settings:
            return settings[name]  # of the config itself
        kept = owner.aliases.get(name, [])
        return again(kept[0][0]) if len(kept) == 1 else UNKNOWN
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return FACTS.get(f"{node.func.id}()", UNKNOWN)
    if isinstance(node, ast.Name):
        return settings.get(f"local {node.id}", FACTS.get(node.id, UNKNOWN))
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        items = [again(item) for item in node.elts]
        return UNKNOWN if UNKNOWN in items else items
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = again(node.operand)
        return UNKNOWN if inner is UNKNOWN else not inner
    if isinstance(node, ast.BoolOp):
        return _bool(node, [again(operand) for operand in node.values])
    if isinstance(node, ast.IfExp):
        test = again(node.test)
        return UNKNOWN if test is UNKNOWN else again(node.body if test else node.orelse)
    if isinstance(node, ast.Compare):
        left, *rest = [again(node.left), *(again(c) for c in node.comparators)]
        for compare, right in zip(node.ops, rest, strict=True):
            if left is UNKNOWN or right is UNKNOWN:
                return UNKNOWN
            try:
                if not COMPARE[type(compare)](left, right):
                    return False
            except TypeError:
                return UNKNOWN
            left = right
        return True
    return UNKNOWN


def _bool(node: ast.BoolOp, operands: list[Any]) -> Any:
    decisive = isinstance(node.op, ast.Or)
    for operand in operands:
        if operand is not UNKNOWN and bool(operand) is decisive:
            return (
                operand
                if UNKNOWN not in operands[: operands.index(operand)]
                else decisive
            )
    return UNKNOWN if UNKNOWN in operands else operands[-1]
