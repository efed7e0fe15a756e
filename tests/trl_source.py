"""Which fields of a config a trainer can read under given settings, found in its source.

The source is parsed, not run. Every read of `args.X`, or of what `__init__` keeps of it as
`self.Y`, is noted with the conditions it stands under: branches, the calls that lead to its
method, the class that it was handed to. A read is possible unless one of its conditions is
known to be false; what cannot be told from the settings is UNKNOWN.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

UNKNOWN = object()
COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
# Text alone, no tools, no images, no code of the user's: what alignkit hands to a trainer.
FACTS = {
    **dict.fromkeys(("tools", "environments", "environment_factories", "images")),
    **dict.fromkeys(("rollout_func", "compute_loss_func")),
    **dict.fromkeys(("_is_vlm", "_is_vision_dataset", "is_conversational()"), False),
}
COMPLAINTS = ("warnings.warn", "logger.warning", "logger.warning_once")
# Called by transformers for an evaluation alone.
EVALUATION = ("_get_eval_sampler", "get_eval_dataloader", "evaluation_loop", "predict")


class Guard(NamedTuple):
    """A condition: an expression, and whether it must be true or false."""

    test: ast.expr
    wanted: bool
    passed: bool = False  # an `if X: return` before it, not a branch around it


Guards = tuple[Guard, ...]
EVALUATES = Guard(ast.parse("eval_dataset is not None", mode="eval").body, True)


@dataclass
class Class:
    """A class that reads the config: its attributes that hold parts of it."""

    node: ast.ClassDef
    entry: Guards = ()  # under which it is made
    handed: Mapping[str, ast.expr] = field(
        default_factory=dict
    )  # arguments of its maker
    kept: dict[str, list[tuple[ast.expr, Guards]]] = field(default_factory=dict)

    @property
    def methods(self) -> dict[str, ast.FunctionDef]:
        return {n.name: n for n in self.node.body if isinstance(n, ast.FunctionDef)}


class Read(NamedTuple):
    """One place where a field is read."""

    name: str
    owner: Class
    method: str
    guards: Guards


def package(name: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def classes(file: Path) -> dict[str, ast.ClassDef]:
    return {n.name: n for n in parsed(file).body if isinstance(n, ast.ClassDef)}


def stated_fields(config: ast.ClassDef) -> set[str]:
    return {n.target.id for n in config.body if isinstance(n, ast.AnnAssign)}


class Source:
    """Trainers with the classes they make, and their config.

    `helpers` are the classes that read, by themselves, what they are handed.
    """

    def __init__(
        self,
        trainers: Iterable[ast.ClassDef],
        config: ast.ClassDef,
        helpers: Mapping[str, ast.ClassDef],
    ) -> None:
        self.helpers = helpers
        self.fields = stated_fields(config)
        self.reads: list[Read] = []
        self.refusals: list[tuple[Class, Guards]] = []
        for trainer in trainers:
            self._follow(Class(trainer))
        self._config(Class(config))

    def possible(self, settings: Mapping[str, Any]) -> set[str]:
        """The fields that may be read under these settings of all fields."""
        known: dict[tuple[int, int], Any] = {}

        def holds(guard: Guard, owner: Class) -> bool:
            key = (id(guard.test), id(owner))
            if key not in known:
                known[key] = value(guard.test, owner, settings)
            return known[key] is UNKNOWN or bool(known[key]) is guard.wanted

        return {r.name for r in self.reads if all(holds(g, r.owner) for g in r.guards)}

    def read(self) -> set[str]:
        """The fields that are read anywhere."""
        return {read.name for read in self.reads}

    def refuses(self, settings: Mapping[str, Any]) -> bool:
        """Whether the trainer or its config is sure to raise under these settings."""

        def certain(guard: Guard, owner: Class) -> bool:
            found = value(guard.test, owner, settings)
            return found is not UNKNOWN and bool(found) is guard.wanted

        return any(all(certain(g, owner) for g in gs) for owner, gs in self.refusals)

    def conditions(self) -> set[str]:
        """The fields that some read hangs on."""
        guards = {id(g.test): (g.test, r.owner) for r in self.reads for g in r.guards}
        return {
            name
            for test, owner in guards.values()
            for name, _ in fields_in(test, owner, ())
        }

    def _follow(self, owner: Class) -> None:
        """Note what the methods of a class read, and follow the classes it makes."""
        if "__init__" in owner.methods:
            self._keep(owner)
        calls: dict[str, list[tuple[str, Guards]]] = {}
        reads: list[tuple[str, str, Guards]] = []
        made: list[tuple[str, ast.Call, Guards]] = []
        for name, method in owner.methods.items():
            for node, guards in statements(method.body, ()):
                if isinstance(node, ast.Raise) and name == "__init__":
                    branches = tuple(g for g in guards if not g.passed)
                    self.refusals.append((owner, branches))
                copies = name == "__init__" and kept_as(node) is not None
                for part in own_expressions(node):
                    for call, inner in calls_in(part, guards):
                        made += [(name, call, inner)] * self._makes(call)
                        callee = attribute_of(call.func, "self") or ""
                        calls.setdefault(callee, []).append((name, inner))
                    if not copies and not self._makes(part):
                        found = fields_in(part, owner, guards)
                        reads += [(name, read, inner) for read, inner in found]
        for name, read, guards in reads:
            for before in ways(name, calls, ()):
                whole = (*owner.entry, *before, *guards)
                self.reads.append(Read(read, owner, name, bound(whole, owner)))
        for name, call, guards in made:
            for before in ways(name, calls, ()):
                entry = resolved((*owner.entry, *before, *guards), owner)
                handed = {
                    k.arg: resolve(k.value, owner) for k in call.keywords if k.arg
                }
                self._follow(Class(self.helpers[call.func.id], entry, handed))

    def _keep(self, owner: Class) -> None:
        for node, guards in statements(owner.methods["__init__"].body, ()):
            name = kept_as(node)
            if name is not None and not self._makes(node.value):
                expression = Replace(owner.handed).on(node.value)
                owner.kept.setdefault(name, []).append((expression, guards))

    def _makes(self, node: ast.expr) -> bool:
        """Whether the expression makes an object that itself reads what it is handed."""
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return is_call and node.func.id in self.helpers

    def _config(self, owner: Class) -> None:
        """What the config itself reads of its fields, which are its own attributes."""
        for name, method in owner.methods.items():
            for node, guards in statements(method.body, ()):
                if isinstance(node, ast.Raise):
                    branches = tuple(g for g in guards if not g.passed)
                    self.refusals.append((owner, branches))
                tidied = kept_as(node)  # `self.x = f(self.x)` reads nothing for use
                for part in own_expressions(node):
                    for read, inner in mentions(part, guards):
                        if read[1] != tidied:
                            self.reads.append(Read(read[1], owner, name, inner))


def of_trl(method: str) -> Source:
    """TRL's trainer and config of a method."""
    trainers = classes(package("trl", "trainer", f"{method}_trainer.py"))
    (config,) = classes(package("trl", "trainer", f"{method}_config.py")).values()
    helpers = classes(package("trl", "trainer", "callbacks.py"))
    helpers |= classes(package("trl", "generation", "vllm_generation.py"))
    return Source([trainers[f"{method.upper()}Trainer"]], config, helpers)


def of_transformers() -> Source:
    """The trainer, the callbacks and the config that TRL's are made from."""
    trainer = classes(package("transformers", "trainer.py"))["Trainer"]
    callbacks = classes(package("transformers", "trainer_callback.py"))
    config = classes(package("transformers", "training_args.py"))["TrainingArguments"]
    return Source([trainer, callbacks["DefaultFlowCallback"]], config, {})


def ways(
    method: str, calls: Mapping[str, list[tuple[str, Guards]]], seen: tuple[str, ...]
) -> Iterator[Guards]:
    """The conditions of each chain of calls that leads to a method."""
    callers = [(m, g) for m, g in calls.get(method, ()) if m not in (*seen, method)]
    if not callers:
        yield (EVALUATES,) if method in EVALUATION else ()
    for caller, guards in callers:
        for before in ways(caller, calls, (*seen, method)):
            yield (*before, *guards)


class Replace(ast.NodeTransformer):
    """Puts what a maker hands over in the place of the parameter."""

    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self.names = names

    def on(self, node: ast.expr) -> ast.expr:
        return self.visit(ast.parse(ast.unparse(node), mode="eval").body)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.names.get(node.id, node)


class Resolve(Replace):
    """Puts what an attribute was kept from in its place."""

    def __init__(self, owner: Class) -> None:
        self.owner = owner

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return resolve(node, self.owner)


def resolve(node: ast.expr, owner: Class) -> ast.expr:
    """An expression in terms of the config alone, where an attribute was kept once."""
    name = attribute_of(node, "self")
    kept = owner.kept.get(name or "", [])
    if len(kept) != 1 or attribute_of(kept[0][0], "self") == name:
        return node
    return resolve(kept[0][0], owner)


def resolved(guards: Guards, owner: Class) -> Guards:
    return tuple(g._replace(test=Resolve(owner).on(g.test)) for g in guards)


def bound(guards: Guards, owner: Class) -> Guards:
    if not owner.handed:
        return guards
    return tuple(g._replace(test=Replace(owner.handed).on(g.test)) for g in guards)


def attribute_of(node: ast.AST, base: str) -> str | None:
    """X of `base.X`."""
    named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return node.attr if named and node.value.id == base else None


def config_field(node: ast.AST) -> str | None:
    """X of `args.X` and `self.args.X` (and of `ctx.args.X`, `state.X`)."""
    if not isinstance(node, ast.Attribute):
        return None
    holder = node.value
    plain = isinstance(holder, ast.Name) and holder.id in ("args", "state")
    return node.attr if plain or getattr(holder, "attr", "") == "args" else None


def kept_as(node: ast.stmt) -> str | None:
    """X of `self.X = ...`."""
    if not isinstance(node, ast.Assign) or len(node.targets) > 1:
        return None
    return attribute_of(node.targets[0], "self")


def statements(
    body: list[ast.stmt], guards: Guards
) -> Iterator[tuple[ast.stmt, Guards]]:
    """Every statement with its conditions."""
    for node in body:
        if not isinstance(node, ast.If):
            yield node, guards
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, part, []), guards)
            for handler in getattr(node, "handlers", []):
                # Only after a failure, of which nothing is known.
                failed = Guard(ast.Name("failure", ast.Load()), True)
                yield from statements(handler.body, (*guards, failed))
            continue
        if not only_complains(node):
            yield node, guards
        yield from statements(node.body, (*guards, Guard(node.test, True)))
        yield from statements(node.orelse, (*guards, Guard(node.test, False)))
        leaves = isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue)
        if leaves and not node.orelse:
            guards = (*guards, Guard(node.test, False, passed=True))


def only_complains(node: ast.If) -> bool:
    """A check: it raises or warns, and at most renames the value that it is about."""
    about = {name for (_, name), _ in mentions(node.test, ())}
    return not node.orelse and all(
        isinstance(s, ast.Raise)
        or kept_as(s) in about
        or (
            isinstance(s, ast.Expr)
            and isinstance(s.value, ast.Call)
            and ast.unparse(s.value.func) in COMPLAINTS
        )
        for s in node.body
    )


def own_expressions(node: ast.stmt) -> Iterator[ast.expr]:
    """The expressions of a statement, without those of the statements in it."""
    for _, child in ast.iter_fields(node):
        for one in child if isinstance(child, list) else [child]:
            if isinstance(one, ast.withitem):
                yield one.context_expr
            elif isinstance(one, ast.expr):
                yield one


def parts(node: ast.AST, guards: Guards) -> Iterator[tuple[ast.AST, Guards]]:
    """Every node below with its conditions in the expression: `a and b`, `b if a else c`."""
    yield node, guards
    if isinstance(node, ast.BoolOp):
        for operand in node.values:
            yield from parts(operand, guards)
            guards = (*guards, Guard(operand, isinstance(node.op, ast.And)))
    elif isinstance(node, ast.IfExp):
        yield from parts(node.test, guards)
        yield from parts(node.body, (*guards, Guard(node.test, True)))
        yield from parts(node.orelse, (*guards, Guard(node.test, False)))
    else:
        for child in ast.iter_child_nodes(node):
            yield from parts(child, guards)


def mentions(
    node: ast.expr, guards: Guards
) -> Iterator[tuple[tuple[str, str], Guards]]:
    """(("config", field) or ("self", attribute), conditions)."""
    for part, inner in parts(node, guards):
        if not isinstance(getattr(part, "ctx", None), ast.Load):
            continue
        if (name := config_field(part)) is not None:
            yield ("config", name), inner
        elif (name := attribute_of(part, "self")) is not None:
            yield ("self", name), inner


def fields_in(
    node: ast.expr, owner: Class, guards: Guards, seen: tuple[str, ...] = ()
) -> Iterator[tuple[str, Guards]]:
    """The fields of the config in an expression, also by way of what the class keeps."""
    for (kind, name), inner in mentions(node, guards):
        if kind == "config":
            yield name, inner
        elif name not in seen:
            for kept, more in owner.kept.get(name, ()):
                yield from fields_in(kept, owner, (*inner, *more), (*seen, name))


def calls_in(node: ast.expr, guards: Guards) -> Iterator[tuple[ast.Call, Guards]]:
    for part, inner in parts(node, guards):
        if isinstance(part, ast.Call):
            yield part, inner


def value(
    node: ast.expr, owner: Class | None, settings: Mapping[str, Any], depth: int = 0
) -> Any:
    """The value of an expression under the settings, or UNKNOWN."""
    of = functools.partial(value, owner=owner, settings=settings, depth=depth + 1)
    if depth > 30:
        return UNKNOWN
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Attribute):
        return _attribute(node, owner, settings, of)
    if isinstance(node, ast.Call):
        return FACTS.get(f"{getattr(node.func, 'id', '')}()", UNKNOWN)
    if isinstance(node, ast.Name):
        return settings.get(f"local {node.id}", FACTS.get(node.id, UNKNOWN))
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        items = [of(item) for item in node.elts]
        return UNKNOWN if UNKNOWN in items else items
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = of(node.operand)
        return UNKNOWN if inner is UNKNOWN else not inner
    if isinstance(node, ast.BoolOp):
        return _bool(isinstance(node.op, ast.Or), [of(v) for v in node.values])
    if isinstance(node, ast.IfExp):
        test = of(node.test)
        return UNKNOWN if test is UNKNOWN else of(node.body if test else node.orelse)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _compare(node.ops[0], of(node.left), of(node.comparators[0]))
    return UNKNOWN


def _attribute(
    node: ast.Attribute, owner: Class | None, settings: Mapping[str, Any], of: Any
) -> Any:
    if (name := config_field(node)) is not None:
        return settings.get(name, UNKNOWN)
    if (name := attribute_of(node, "self")) is None or owner is None:
        if node.attr.isupper():  # a member of an enum: SaveStrategy.STEPS
            return node.attr.lower()
        return settings.get(f"local {ast.unparse(node)}", UNKNOWN)
    if name in FACTS:
        return FACTS[name]
    kept = owner.kept.get(name, [])
    if not owner.kept:  # the config's own
        return settings.get(name, UNKNOWN)
    return of(kept[0][0]) if len(kept) == 1 else UNKNOWN


def _compare(kind: ast.cmpop, left: Any, right: Any) -> Any:
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    try:
        return COMPARE[type(kind)](left, right)
    except TypeError:
        return UNKNOWN


def _bool(any_of: bool, operands: list[Any]) -> Any:
    """`a or b` (any_of), `a and b`: known as soon as one operand decides."""
    for number, operand in enumerate(operands):
        if operand is not UNKNOWN and bool(operand) is any_of:
            return any_of if UNKNOWN in operands[:number] else operand
    return UNKNOWN if UNKNOWN in operands else operands[-1]
