"""Settings of a page and of a link, which may hold anything."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from captum_sgcampp.demo.settings import Settings, link_of, settings_of


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings("shapes", "features.9", 3, 0, ("grad-cam",), True, 64, 0.5, 2**32 - 1, "3 17", "2:5,3:7", "gray", 1.0),
    ],
)
def test_a_link_holds_the_settings(settings: Settings) -> None:
    link = dict(parse_qsl(link_of(settings, 2).removeprefix("?")))
    assert link.pop("scene") == "2" and settings_of(link) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nt_samples", 0),
        ("nt_samples", "nan"),
        ("nt_samples", 65),
        ("nt_samples", "1e400"),
        ("nt_samples", 2.5),
        ("noise_level", "inf"),
        ("noise_level", 0),
        ("opacity", 1.1),
        ("seed", -1),
        ("cmap", "../jet"),
        ("methods", []),
        ("methods", ["grad-cam", "__class__"]),
        ("methods", [{}]),
        ("target", "star"),
        ("layer", ["features.9"]),
        ("neurons", {"path": "/etc/passwd"}),
    ],
)
def test_other_values_are_refused_in_one_sentence(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        settings_of({name: value})
    assert len(str(error.value)) < 200
