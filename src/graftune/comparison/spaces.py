"""A search for several options of a method at once, by Optuna's tree of Parzen estimators.

Points are asked for in generations, each from the results of all before it, with a seed of its own. So they are a
function of what was tried, in whatever order that came back, and a search can be stopped, resumed and shared out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Any, Final

from graftune.comparison import search
from graftune.comparison.candidates import Candidate
from graftune.comparison.points import Options, Point, finite, hashable, options_of
from graftune.config.sections import checked_sections
from graftune.errors import GraftuneError, unknown
from graftune.methods.method import Method

GENERATION: Final = 5
RATE: Final = "lr"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, whole ones where `whole`."""

    low: float
    high: float
    whole: bool


@dataclass(frozen=True)
class Space:
    """The options that are searched together with a rate, how many points are tried, and what is tried first."""

    options: Mapping[str, Range | tuple[Any, ...]]
    trials: int
    first: Options
    seed: int

    def to_try(self, centre: float, tried: Mapping[Point, float | None], spacing: float, points: int) -> list[Point]:
        """The points of the generation that is under way which have not been tried; none once the search is over.

        The first generation is the grid of rates, with the options that the method has.
        """
        rates = search.grid(centre, spacing, points)
        known = dict.fromkeys(Point(rate, self.first) for rate in rates)
        generation = list(known)
        while not (left := [point for point in generation if point not in tried]):
            if len(known) >= self.trials:
                return []
            generation = self._asked({point: tried[point] for point in known}, rates, spacing)
            if not generation:
                return []
            known |= dict.fromkeys(generation)
        return left

    def _asked(self, tried: Mapping[Point, float | None], rates: list[float], spacing: float) -> list[Point]:
        """The next generation, from the points before it and their scores; a failed one has the worst of these."""
        optuna = _optuna()
        low, high = search.rounded(rates[0] / spacing), search.rounded(rates[-1] * spacing)
        shapes: dict[str, Any] = {RATE: optuna.distributions.FloatDistribution(low, high, log=True)}
        for name, values in self.options.items():
            shapes[name] = _distribution(optuna, values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a joint model is experimental
            sampler = optuna.samplers.TPESampler(seed=self.seed + len(tried), n_startup_trials=1, multivariate=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        scores = finite(tried)
        worst = min(scores.values(), default=0.0)
        for point in tried:
            params = {RATE: point.rate, **{name: self._coded(name, value) for name, value in point.options}}
            value = scores.get(point, worst)
            study.add_trial(optuna.trial.create_trial(params=params, distributions=shapes, value=value))
        found: dict[Point, None] = {}
        wanted = min(GENERATION, self.trials - len(tried))
        for _ in range(10 * wanted):  # what was tried before is asked for again at times
            params = study.ask(shapes).params
            options = {name: self._decoded(name, params[name]) for name in self.options}
            point = Point(search.rounded(params[RATE]), options_of(options))
            if point not in tried:
                found[point] = None
            if len(found) == wanted:
                break
        return list(found)

    def _coded(self, name: str, value: Any) -> Any:
        """A value as Optuna is given it: of choices their place, since a list is no value to it."""
        values = self.options[name]
        return value if isinstance(values, Range) else values.index(value)

    def _decoded(self, name: str, value: Any) -> Any:
        values = self.options[name]
        return value if isinstance(values, Range) else values[value]


def _distribution(optuna: Any, values: Range | tuple[Any, ...]) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(range(len(values)))
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high))
    return optuna.distributions.FloatDistribution(values.low, values.high)


def check_installed() -> None:
    """Raise GraftuneError where Optuna is not there."""
    if find_spec("optuna") is None:
        raise GraftuneError(
            "Optuna is not installed",
            received="search: optuna",
            expected="the extra `optuna`",
            do="pip install 'graftune[optuna]', or leave search out",
        )


def _optuna() -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


# Reading --------------------------------------------------------------------------------------------------------


def read(given: Mapping[str, Any], chosen: Sequence[Candidate], trials: int, seed: int) -> dict[str, Space]:
    """The spaces by candidate, of `{"lora.rank": [4, 16], "lora.dropout": {"low": 0, "high": 0.2}}`.

    Raises GraftuneError for candidates that are not there, options that they do not have, and values that do not fit.
    """
    found: dict[str, dict[str, Range | tuple[Any, ...]]] = {}
    names = {name for one in chosen if one.method.trainable for name in (one.label, one.method.preset)}
    for key, values in given.items():
        name, _, option = key.rpartition(".")
        if option == RATE and name in names:
            raise GraftuneError(
                "the rate is always searched, around the method's usual one",
                received=f"a space for {key}",
                expected="other options of the method, such as rank or dropout",
                do=f"leave it out, or give the rate with --known {key}=…",
            )
        if name not in names:
            raise unknown("candidate whose options are searched", name or key, names)
        for one in chosen:
            if name in (one.label, one.method.preset):
                found.setdefault(one.label, {})[option] = _values(one, option, values)
    methods = {one.label: one.method for one in chosen}
    return {
        label: Space(options, trials, options_of(_first(methods[label], options)), seed)
        for label, options in found.items()
    }


def _values(one: Candidate, option: str, given: Any) -> Range | tuple[Any, ...]:
    fixed = type(one.method).presets.get(one.method.preset, {})
    names = [field.name for field in fields(one.method) if field.name not in fixed]
    if option not in names:
        raise unknown(f"option of {one.method.preset}", option, names)
    is_range = isinstance(given, Mapping) and set(given) == {"low", "high"}
    values = [given["low"], given["high"]] if is_range else given
    if not isinstance(values, list) or len(values) < 2 or (is_range and not _ascends(values)):
        raise GraftuneError(
            f"the values of {one.method.preset}.{option} cannot be searched",
            received=repr(given),
            expected="two or more in brackets, or a range {low: 0, high: 0.2}",
            do="write them so",
        )
    typed = [checked_sections({one.method.preset: {option: value}})[one.method.preset][option] for value in values]
    for value in typed:
        replace(one.method, **{option: value})  # raises where the method refuses it
    if is_range:
        low, high = typed
        return Range(low, high, whole=isinstance(low, int) and isinstance(high, int))
    return tuple(map(hashable, typed))


def _ascends(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values) and values[0] < values[1]


def _first(method: Method, options: Mapping[str, Range | tuple[Any, ...]]) -> dict[str, Any]:
    """The method's own values where they are among those that are searched, else the nearest or the first."""
    found = {}
    for name, values in options.items():
        own = getattr(method, name)
        if isinstance(values, Range):
            found[name] = min(max(own, values.low), values.high) if isinstance(own, int | float) else values.low
        else:
            found[name] = own if own in values else values[0]
    return found
