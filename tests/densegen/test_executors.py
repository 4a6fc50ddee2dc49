from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from densegen.dataset.build import Plan, build
from densegen.errors import BuildError
from densegen.executors import INLINE, open_pool
from tests.densegen.dataset.builds import digests


def test_tasks_begin_only_as_earlier_ones_are_done() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return -number

    results = INLINE.run(work, range(5))
    assert next(results) == 0
    assert begun == [0]
    assert sorted(results) == [-4, -3, -2, -1]


def test_an_error_ends_the_run() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise BuildError("full")
        return number

    results = INLINE.run(work, range(5))
    assert next(results) == 0
    with pytest.raises(BuildError, match="full"):
        next(results)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries below the cluster
def test_a_cluster_of_workers_with_threads_writes_the_same_bytes(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=4,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
    ):
        warnings.simplefilter("ignore")
        build(plan, tmp_path / "out", scheduler=cluster.scheduler_address)
    assert digests(tmp_path / "out") == digests(dataset)


def test_a_pool_of_one_is_this_process() -> None:
    with open_pool(1) as pool:
        assert pool is INLINE
