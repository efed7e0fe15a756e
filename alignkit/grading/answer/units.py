r"""Units of measure behind a number: their dimension and size, and what a word that is
none counts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction

from alignkit.grading.latex_text import words as table

_TABLE = r"""
length  m metre meter=1 mm millimetre millimeter=1/1000 km kilometre kilometer=1000
length  cm centimetre centimeter=1/100 dm decimetre decimeter=1/10 nm nanometer=1e-9
length  in inch=0.0254 ft foot feet=0.3048 yd yard=0.9144 mi mile=1609.344
area    are=100 acre=4046.8564224 hectare ha=10000 sqm=1
volume  l liter litre=1/1000 ml milliliter millilitre=1e-6 cl=1e-5 cc=1e-6
volume  gal gallon=0.003785411784
mass    kg kilogram=1 g gram gm=1/1000 mg milligram=1e-6 t ton tonne=1000
mass    lb lbs pound=0.45359237 oz ounce=0.028349523125
time    s sec second=1 ms millisecond=1/1000 min minute=60 h hr hour=3600
time    day d=86400 week=604800 month=2629800 year yr=31557600
money$  $ dollar buck usd=1 cent ¢ penny pennies=1/100 dime=1/10 nickel=1/20 quarter=1/4
money€  \euro euro eur=1
money£  \pound gbp=1
money¥  \yen yen=1
angle   rad radian=1 degree deg °=PI/180
share   % percent=1/100
speed   mph=0.44704 kmh kph=5/18
energy  j joule=1 kj=1000 ev=0.0000000000000000001602176634 cal=4.184
power   w watt=1 kw=1000
current a amp ampere=1
voltage v volt=1
force   n newton=1
pressure pa pascal=1
frequency hz hertz=1 khz=1000 mhz=1000000
amount  mol mole=1
temperature k kelvin=1
°C      °c celsius=1
°F      °f fahrenheit=1
"""
_UNITS: dict[str, tuple[str, Fraction, bool]] = {}
for _line in _TABLE.strip().splitlines():
    _dimension, _rest = _line.split(maxsplit=1)
    _names: list[str] = []
    for _word in _rest.split():
        _name, _, _size = _word.partition("=")
        _names.append(_name)
        if _size:
            _pi = _size.startswith("PI")
            _value = Fraction(_size.removeprefix("PI/")) if _pi else Fraction(_size)
            for _each in _names:
                _UNITS[_each] = (_dimension, 1 / _value if _pi else _value, _pi)
            _names = []
# areas and volumes by the name of a length
_POWERS = {"area": ("length", 2), "volume": ("length", 3)}
_COMPOSED = {"speed": (("length", 1), ("time", -1))}
_IGNORED = table("""
    of the a an in per each approximately about exactly total units unit
    """)
_PART = re.compile(
    r"(?P<name>[^\W\d_]+|\\[a-z]+|[$%¢°][a-zA-Z]?)\s*(?:\^?\s*\{?\s*(?P<power>-?\d)\s*\}?)?"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Dimensions with their exponents, and how many of the basic unit it is."""

    dimensions: tuple[tuple[str, int], ...] = ()
    size: Fraction = Fraction(1)
    turns: int = 0  # factors of pi in the size
    names: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def counted(self) -> bool:
        """Whether it is a word that counts things, and no measure."""
        return any(name.startswith("word:") for name, _ in self.dimensions)

    @property
    def share(self) -> bool:
        """Percent."""
        return self.dimensions == (("share", 1),)

    @property
    def angle(self) -> bool:
        return self.dimensions == (("angle", 1),)

    def contradicts(self, other: Unit) -> bool:
        """Both are stated, and measure or count different things."""
        if not self.dimensions or not other.dimensions:
            return False
        return self.dimensions != other.dimensions


def unit_of(text: str) -> Unit | None:
    """The unit that a text spells: `cm`, `square feet`, `m/s^2`, `cookies`; None when it
    is none.
    """
    text = text.replace("·", " ").replace("\\cdot", " ").replace("*", " ").strip()
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)
    text = text.replace("{", "").replace("}", "").strip(" .")
    if not text:
        return Unit()
    dimensions: Counter[str] = Counter()
    size, turns = Fraction(1), 0
    names: set[str] = set()
    sign, next_power = 1, 1
    words = re.split(r"\s+|(/)", text.replace(" per ", " / "))
    for word in filter(None, words):
        lowered = word.lower()
        if word == "/":
            sign = -1
        elif lowered in ("square", "sq", "squared", "cubic", "cubed"):
            next_power = 2 if lowered.startswith("s") else 3
            if lowered.endswith("ed") and names:
                name = max(dimensions, key=lambda n: abs(dimensions[n]))
                dimensions[name] *= next_power
                size **= next_power
                next_power = 1
        elif lowered not in _IGNORED:
            part = _PART.fullmatch(word)
            if part is None:
                return None
            power = sign * int(part["power"] or 1) * next_power
            dimension, factor, pi = _known(part["name"])
            names.add(part["name"].lower())
            basic, inner = _POWERS.get(dimension, (dimension, 1))
            for base, exponent in _COMPOSED.get(dimension, ((basic, inner),)):
                dimensions[base] += exponent * power
            size *= factor**power
            turns += power if pi else 0
            next_power = 1
    words_only = [name for name in dimensions if name.startswith("word:")]
    if len(words_only) > 1:
        # chocolate cookies are cookies
        for name in words_only[:-1]:
            del dimensions[name]
    kept = tuple(sorted((n, p) for n, p in dimensions.items() if p))
    return Unit(kept, size, turns, frozenset(names))


def _known(name: str) -> tuple[str, Fraction, bool]:
    lowered = name.lower()
    for candidate in (
        name,
        lowered,
        lowered.removesuffix("s"),
        lowered.removesuffix("es"),
    ):
        if candidate in _UNITS:
            return _UNITS[candidate]
    return f"word:{_stem(lowered)}", Fraction(1), False


def _stem(word: str) -> str:
    for ending, replacement in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending) + replacement
    return word


def is_measure(word: str) -> bool:
    """Whether a word names a unit of the table."""
    return bool(word) and not _known(word)[0].startswith("word:")
