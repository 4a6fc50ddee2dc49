"""Sine, cosine and exponential in a fixed order of additions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densegen.geometry.elementary import exponential, sine_cosine

angles = st.floats(-50, 50)


@given(angles)
def test_sine_and_cosine_are_right_to_the_last_places(angle: float) -> None:
    sine, cosine = sine_cosine(angle)
    assert sine == pytest.approx(math.sin(angle), abs=3e-16)
    assert cosine == pytest.approx(math.cos(angle), abs=3e-16)


@given(st.floats(-700, 700))
def test_the_exponential_is_right_to_the_last_places(exponent: float) -> None:
    assert float(exponential(np.array([exponent]))[0]) == pytest.approx(math.exp(exponent), rel=1e-15)
