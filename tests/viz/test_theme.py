"""Colours that can be told apart by everyone: simulated colour blindness, distances in CIELAB."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from caa_lens.viz.theme import DIVERGING, OKABE_ITO, SEQUENTIAL, line_style

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SEEN_AS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deuteranopia": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritanopia": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(color: str, seen_as: str) -> np.ndarray:
    """CIELAB (D65) of ``#rrggbb`` as it is seen."""
    rgb = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(SEEN_AS[seen_as] @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, other: str, seen_as: str) -> float:
    """CIE76 distance; about 2 is just noticeable side by side."""
    return float(np.linalg.norm(lab(one, seen_as) - lab(other, seen_as)))


def test_the_measure_sees_what_is_known() -> None:
    assert apart("#ffffff", "#000000", "normal") == pytest.approx(100, abs=0.1)
    assert apart("#d00000", "#6f6600", "normal") > 60 > 25 > apart("#d00000", "#6f6600", "deuteranopia")


@pytest.mark.parametrize("seen_as", SEEN_AS)
def test_lines_can_be_told_apart(seen_as: str) -> None:
    distances = {pair: apart(*pair, seen_as) for pair in combinations(OKABE_ITO, 2)}
    assert min(distances.values()) > 10, min(distances, key=distances.__getitem__)
    often = min(apart(*pair, seen_as) for pair in combinations(OKABE_ITO[:3], 2))
    assert often > (15 if seen_as == "tritanopia" else 30), "these stand alone; one in 10,000 is tritanope"
    assert min(apart(color, "#ffffff", seen_as) for color in OKABE_ITO) > 30


@pytest.mark.parametrize("seen_as", SEEN_AS)
def test_the_two_signs_can_be_told_apart_and_darken_with_size(seen_as: str) -> None:
    lightness = [lab(color, seen_as)[0] for _, color in DIVERGING]
    assert lightness[0] < lightness[1] < lightness[2] > lightness[3] > lightness[4]
    assert lightness[2] == pytest.approx(100, abs=0.5)
    assert apart(DIVERGING[0][1], DIVERGING[4][1], seen_as) > 40 < apart(DIVERGING[1][1], DIVERGING[3][1], seen_as)


@pytest.mark.parametrize("seen_as", SEEN_AS)
def test_an_order_of_lines_lightens(seen_as: str) -> None:
    lightness = [lab(color, seen_as)[0] for color in SEQUENTIAL]
    assert np.diff(lightness).min() > 20 and lightness[-1] < 80, "ascending, and still dark enough on white"


def test_line_styles_do_not_repeat_soon() -> None:
    assert len({line_style(index) for index in range(49)}) == 49
