"""The words and the title of a protocol."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from densetrain.evaluation.protocol import Protocol

BENCHMARK = Protocol(
    benchmark="AFLW2000-3D", faces=16, all_faces=2000, points="68 points", labels="original", yaw="fit"
)


def test_a_number_is_printed_with_all_that_it_was_made_with() -> None:
    assert str(BENCHMARK.model_copy(update={"comparison": "public script"})) == (
        "AFLW2000-3D, 16 of 2,000 images, 68 points, 2D, labels original, yaw fit, normalised by sqrt(w h) of the true "
        "68 points' box, as the public script: predictions counted from 1, labels as they stand"
    )
    assert "2,000 images" in str(BENCHMARK.model_copy(update={"faces": 2000}))
    shards = Protocol(
        benchmark="shards of demo (0123abcd)", faces=20, points="520 landmarks of own 1.2.0", split="test"
    )
    assert str(shards).startswith("shards of demo (0123abcd), split test, 20 samples, 520 landmarks of own 1.2.0, 2D")


def test_a_title_tells_protocols_of_one_benchmark_apart() -> None:
    assert BENCHMARK.title == "AFLW2000-3D, labels original, yaw fit"
    script = BENCHMARK.model_copy(update={"comparison": "public script"})
    files = BENCHMARK.model_copy(update={"comparison": "label files"})
    assert len({one.title for one in (BENCHMARK, script, files)}) == 3


def test_a_protocol_knows_no_other_labels() -> None:
    with pytest.raises(ValidationError, match="labels"):
        Protocol(benchmark="AFLW", faces=1, points="21 points", labels="mine")  # type: ignore[arg-type]
