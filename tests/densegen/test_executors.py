from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from densegen.dataset.build import Plan, Silent, build
from densegen.errors import BuildError
from densegen.executors import INLINE, open_pool, read_ahead
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


def test_the_next_part_is_read_while_one_is_worked_on_and_no_further_one() -> None:
    begun: list[int] = []
    second = threading.Event()

    def read(task: int) -> int:
        begun.append(task)
        if task == 1:
            second.set()
        return 10 * task

    parts = read_ahead(read, range(4))
    assert next(parts) == 0
    assert second.wait(10)
    assert begun == [0, 1]
    assert list(parts) == [10, 20, 30]
    assert list(read_ahead(read, range(0))) == []


def test_several_threads_read_at_once_and_the_order_stays() -> None:
    together = threading.Barrier(3, timeout=10)

    def read(task: int) -> int:
        if task < 3:
            together.wait()  # breaks unless three are read at the same time
        return 10 * task

    assert list(read_ahead(read, range(7), threads=3)) == [10 * task for task in range(7)]


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


@contextmanager
def cluster(folder: Path, *workers: dict[str, str]) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and workers as processes of their own, with more environment variables each."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    python, quiet = [sys.executable, "-W", "ignore"], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--port", address.split(":")[-1], "--no-dashboard"]
    worker = ["-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    processes = [subprocess.Popen([*python, *scheduler], cwd=folder, **quiet)]
    try:
        time.sleep(1)
        processes += [
            subprocess.Popen([*python, *worker], cwd=folder, env=os.environ | more, **quiet) for more in workers
        ]
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(dataset: Path, plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("distributed")

    class Killer(Silent):
        def advance(self, done: int, set_aside: int = 0) -> None:
            workers[0].kill()

    with cluster(tmp_path, {}, {}) as (address, workers):
        build(plan, tmp_path / "out", scheduler=address, progress=Killer())
        assert workers[0].wait() == -9
        assert workers[1].poll() is None
    assert digests(tmp_path / "out") == digests(dataset)


BLIND = """
from pathlib import Path
from densegen.sources import photograph
real = Path.read_bytes
def read_bytes(path):
    if path.suffix == ".jpg":
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return real(path)
Path.read_bytes = read_bytes
photograph.file_size = lambda path: 1000
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_does_not_see_the_photographs_ends_the_build(plan: Plan, dataset: Path, tmp_path: Path) -> None:
    """Its fits would be set aside as missing, and the set would be smaller without a word."""
    pytest.importorskip("distributed")
    (tmp_path / "sitecustomize.py").write_text(BLIND)
    blind = cluster(tmp_path, {"PYTHONPATH": str(tmp_path)})
    with (
        blind as (address, _),
        pytest.raises(BuildError, match="a worker does not see .*jpg, which is there: all mach"),
    ):
        build(plan, tmp_path / "out", scheduler=address)
    build(plan, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(dataset)


def test_a_pool_of_one_is_this_process() -> None:
    with open_pool(1) as pool:
        assert pool is INLINE
