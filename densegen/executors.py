"""Where tasks run: this process, local processes, or a Dask cluster, behind one ``concurrent.futures`` interface."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from densegen.errors import BuildError, ConfigurationError
from densegen.extras import install_line
from densegen.files import interrupt_ignored

__all__ = ["INLINE", "Pool", "open_pool", "read_ahead"]

Task = TypeVar("Task")
Result = TypeVar("Result")


class InlineExecutor(Executor):
    """Runs each task at once, in this process."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Pool:
    """An executor, and how many tasks wait in it at most: no worker idles, and a stop is prompt."""

    executor: Executor
    in_flight: int

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results as they come, in any order. If a task raises, the tasks that have not begun are cancelled."""
        queue = iter(tasks)
        pending: set[Future[Result]] = set()
        try:
            while True:
                while len(pending) < self.in_flight and (task := next(queue, None)) is not None:
                    pending.add(self.executor.submit(function, task))
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()


INLINE = Pool(InlineExecutor(), in_flight=1)
"""This process."""


def read_ahead(read: Callable[[Task], Result], tasks: Iterable[Task], threads: int = 1) -> Iterator[Result]:
    """What is read for each task, in order; as many as there are threads are read while one is worked on."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                ahead.append(pool.submit(read, task))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def open_pool(jobs: int, scheduler: str | None = None) -> Iterator[Pool]:
    """A pool of ``jobs`` processes, or the Dask cluster whose scheduler listens at ``scheduler``.

    Raises :class:`ConfigurationError` if Dask is not installed or does not answer, :class:`BuildError` if a
    worker process dies.
    """
    if scheduler is not None:
        with _dask_executor(scheduler) as executor:
            yield Pool(executor, in_flight=256)
    elif jobs == 1:
        yield INLINE
    else:
        with _local_executor(jobs) as executor:
            yield Pool(executor, in_flight=2 * jobs)


class _LocalProcesses(ProcessPoolExecutor):
    """A pool that blocks SIGINT while workers start, so that Ctrl-C cannot kill one before it ignores the signal."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _local_executor(jobs: int) -> Iterator[Executor]:
    from concurrent.futures.process import BrokenProcessPool

    pool = _LocalProcesses(jobs, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    except KeyboardInterrupt:
        _stop_at_once(pool)
        raise
    except BrokenProcessPool as error:
        raise BuildError(
            "a worker process died: out of memory (run the same command again, with fewer --jobs), or a script that "
            "builds with several jobs outside of 'if __name__ == \"__main__\":'"
        ) from error
    finally:
        with interrupt_ignored():
            pool.shutdown(wait=True, cancel_futures=True)


def _stop_at_once(pool: ProcessPoolExecutor) -> None:
    """Kill the workers without waiting for their shards: a shard is written whole or not at all, and is built again.

    Waiting would take long enough for a second Ctrl-C. That could interrupt the pool's shutdown and hang it for ever.
    """
    with interrupt_ignored():
        processes: Any = pool._processes
        for process in list((processes or {}).values()):
            process.kill()


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group. Workers ignore it: the parent kills them, see _stop_at_once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A pool's workers would wait for ever for a parent that was killed with SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _dask_executor(scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import CancelledError, Client, KilledWorker
    except ImportError as error:
        raise ConfigurationError(f"--scheduler needs Dask: {install_line('cluster')}") from error
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    try:
        # retries: a machine that goes away takes no shard with it.
        yield client.get_executor(retries=2)
    except (KilledWorker, CancelledError) as error:
        raise BuildError(f"the cluster lost a task: {error}: run the same command again") from error
    finally:
        client.close()
