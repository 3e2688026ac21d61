"""What a visitor has set, checked, and the link that holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from captum_sgcampp.demo.kept_samples import MOST_SAMPLES
from captum_sgcampp.demo.methods import DEFAULT, SHOWN

COLOR_MAPS = ("jet", "viridis", "inferno", "magma", "cividis", "turbo", "gray")
NOISE_RANGE = (0.01, 0.5)
LONGEST_LINK = 2000  # characters that every browser takes


@dataclass(frozen=True)
class Settings:
    """All that makes the maps of a picture, and how they are shown.

    Attributes:
        network, layer: names. Empty: the first of the list.
        target, compared: class indices. None: the most probable class; no second class.
        methods: some of `demo.methods.SHOWN`.
        auto: whether noisy samples are taken until the standard error is small.
        nt_samples: otherwise so many.
        noise_level, seed: of the noise.
        feature_maps, neurons: in words, see `demo.selection`. Empty: all.
        cmap, opacity: of the colors.
    """

    network: str = ""
    layer: str = ""
    target: int | None = None
    compared: int | None = None
    methods: tuple[str, ...] = DEFAULT
    auto: bool = False
    nt_samples: int = 8
    noise_level: float = 0.15
    seed: int = 0
    feature_maps: str = ""
    neurons: str = ""
    cmap: str = "jet"
    opacity: float = 0.5

    def __post_init__(self) -> None:
        _check_number("n", self.nt_samples, 1, MOST_SAMPLES)
        _check_number("noise level", self.noise_level, *NOISE_RANGE)
        _check_number("seed", self.seed, 0, 2**32 - 1)
        _check_number("opacity", self.opacity, 0, 1)
        for argument, value, known in [
            ("color map", self.cmap, COLOR_MAPS),
            *(("method", m, SHOWN) for m in self.methods),
        ]:
            if value not in known:
                raise ValueError(f"{argument}: expected one of {', '.join(known)}, found {str(value)[:40]!r}")
        if not self.methods:
            raise ValueError("methods: expected at least one, found none")


def _check_number(argument: str, value: object, least: float, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        raise ValueError(f"{argument}: expected a number from {least:g} to {most:g}, found {str(value)[:40]!r}")


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The settings that the components of the page, or a link, hold.

    Args:
        values: numbers or texts by the names of `Settings`. Missing ones: its defaults. Other names are ignored.

    Raises:
        ValueError: a value that does not fit.

    Examples::

        >>> settings_of({"target": "3", "methods": "grad-cam", "lang": "en"}).methods
        ('grad-cam',)
    """
    found = {}
    for field in fields(Settings):
        if values.get(field.name) is not None:
            found[field.name] = _read(field.name, values[field.name])
    return Settings(**found)


def _read(name: str, value: Any) -> Any:
    try:
        reader: Callable[[Any], Any] = _READERS.get(name, _text)
        return reader(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name.replace('_', ' ')}: expected another value, found {str(value)[:40]!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


def _index(value: Any) -> int | None:
    return None if value == "" else _whole(value)


def _whole(value: Any) -> int:
    if float(value) != int(float(value)):
        raise ValueError("expected a whole number")
    return int(float(value))


def _flag(value: Any) -> bool:
    return value in (True, "True", "true", "1")


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value.split(",") if isinstance(value, str) else map(_text, value))


_READERS: dict[str, Callable[[Any], Any]] = {
    "target": _index,
    "compared": _index,
    "methods": _names,
    "auto": _flag,
    "nt_samples": _whole,
    "noise_level": float,
    "seed": _whole,
    "opacity": float,
}


def link_of(settings: Settings, scene: int | None) -> str:
    """The end of a link: what differs from the defaults, and the number of the example.

    A visitor's own picture is in no link.

    Examples::

        >>> link_of(Settings(target=3, nt_samples=16), scene=0)
        '?scene=0&target=3&nt_samples=16'
    """
    changed: dict[str, object] = {} if scene is None else {"scene": scene}
    defaults = asdict(Settings())
    for name, value in asdict(settings).items():
        if value != defaults[name]:
            changed[name] = ",".join(value) if isinstance(value, tuple) else value
    link = f"?{urlencode(changed)}"
    return link if len(link) <= LONGEST_LINK else link_of(replace(settings, feature_maps="", neurons=""), scene)
