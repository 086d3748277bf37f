"""What every method is: a frozen dataclass that says which parts go to which sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from graftune.errors import GraftuneError, unknown
from graftune.methods.rates import SPACING, Conditions, Kind, rates

if TYPE_CHECKING:
    from torch import nn

    from graftune.model.context import Context
    from graftune.parts import Generator, Site

#: Preset name on the command line -> (class, options it fixes). Filled as methods are imported.
PRESETS: dict[str, tuple[type[Method], dict[str, Any]]] = {}


@dataclass
class Build:
    """The result of building a method on a base: parts by site, and generators of some of them."""

    grafts: list[tuple[Site, nn.Module]] = field(default_factory=list)
    generators: list[Generator] = field(default_factory=list)


@dataclass(frozen=True)
class Method:
    """Base of all methods. A subclass names its presets, its usual learning rate, and builds its parts."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    #: AdamW's usual peak learning rates by kind of base, for width 768, 16 rows and 300 to 3000 steps.
    learning_rates: ClassVar[Mapping[Kind, float]] = rates(1e-3)
    #: Whether it falls with the base's width, as it must where an update is summed over that width.
    falls_with_width: ClassVar[bool] = True
    #: How far apart the rates of a search lie: the less is known of where the best one is, the wider.
    spacing: ClassVar[float] = SPACING
    #: Whether there is anything to train.
    trainable: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, fixed in cls.__dict__.get("presets", {}).items():
            PRESETS[name] = (cls, fixed)

    @property
    def template(self) -> str:
        """The text around the input, with virtual tokens as ``{P:n}``."""
        return "{input}"

    @property
    def front(self) -> bool:
        """Whether virtual tokens simply precede the text, so that a row without any can be given them."""
        return True

    @property
    def shots(self) -> int:
        """Number of solved examples shown before the input."""
        return 0

    @property
    def shifts(self) -> bool:
        """Whether key/value rows count as positions, so that those of the text move by their number."""
        return False

    @property
    def rates(self) -> dict[str, float]:
        """Factors on the learning rate, by a regular expression found in a parameter's name."""
        return {}

    def build(self, context: Context) -> Build:
        """Make the parts for one base. Raises GraftuneError where the base has no fitting site."""
        raise NotImplementedError

    def usual_rate(self, on: Conditions) -> float:
        """The peak learning rate where the user gives none: `learning_rates`, scaled to the conditions."""
        return self.learning_rates[on.kind] * on.scale(falls_with_width=self.falls_with_width)

    def describe(self) -> dict[str, Any]:
        """The method as plain data: its preset name and all its options."""
        return {"method": self.preset, **{f.name: getattr(self, f.name) for f in fields(self)}}

    @property
    def preset(self) -> str:
        """The command-line name that fits this instance best."""
        fitting = [
            (len(fixed), name)
            for name, fixed in type(self).presets.items()
            if all(getattr(self, key) == value for key, value in fixed.items())
        ]
        return max(fitting)[1] if fitting else type(self).__name__

    def _at_least(self, low: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value < low:
                raise GraftuneError(
                    f"{type(self).__name__}: bad value for {name!r}",
                    received=repr(value),
                    expected=f"a number of at least {low}",
                    do=f"set {name} to {low} or more",
                )

    def _one_of(self, name: str, choices: Iterable[str]) -> None:
        value = getattr(self, name)
        if value not in (known := tuple(choices)):
            raise unknown(f"value of {name!r} for {type(self).__name__}", str(value), known)


def make(name: str, **options: Any) -> Method:
    """A method from its preset name and options.

    Raises GraftuneError for an unknown name, an option the method does not have, or one that the preset fixes.
    """
    if name not in PRESETS:
        raise unknown("method", name, PRESETS)
    cls, fixed = PRESETS[name]
    known = {f.name: f for f in fields(cls)}
    for key, value in options.items():
        if key not in known:
            raise unknown(f"option of method {name!r}:", key, set(known) - set(fixed))
        if key in fixed and fixed[key] != value:
            raise GraftuneError(
                f"option {key!r} is what makes the method {name!r}",
                received=f"{key}={value!r}",
                expected=f"{key}={fixed[key]!r}",
                do="leave it out, or choose another method",
            )
    clean = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return cls(**{**fixed, **clean})
