"""Which samples an epoch takes, in which order, and in which batches.

The order of an epoch is a function of seed and epoch. Batches are numbered over all processes: process r of R takes
the batches r, r + R, ..., so R processes see in a step what one process sees that accumulates R batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from densegen.arrays import Int64
from densegen.errors import ConfigurationError

__all__ = ["BatchSampler", "Windows", "epoch_order", "step_seed"]


def step_seed(seed: int, epoch: int, number: int) -> int:
    """The seed of everything random in a step: of where in the training it is, so that a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, epoch, number]).generate_state(1, np.uint32)[0])


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """What of a set is shuffled together.

    firsts : (M,) int64, the first sample of each shard, ascending
    size : shards in a window
    """

    firsts: Int64
    size: int


def epoch_order(rows: Int64, windows: Windows | None, seed: int, epoch: int) -> Int64:
    """The rows, ascending, in the order of an epoch, a function of seed and epoch: all shuffled, or the shards
    shuffled, and then the samples of each window of whole shards.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if windows is None:
        return rows[generator.permutation(len(rows))]
    starts = np.append(np.searchsorted(rows, windows.firsts), len(rows))
    shards = generator.permutation(np.flatnonzero(np.diff(starts)))  # those that hold rows
    order = []
    for first in range(0, len(shards), windows.size):
        window = np.concatenate([rows[starts[n] : starts[n + 1]] for n in shards[first : first + windows.size]])
        order.append(window[generator.permutation(len(window))])
    return np.concatenate(order)


class BatchSampler(Sampler[Any]):
    """The keys of an epoch's batches for this process.

    shuffle : another order every epoch, and what is too few for a whole batch in each process, or a whole step, is
        left out (unless it is the only batch); otherwise all samples in order, with batches of weight 0 if the
        processes would not come out even
    accumulate : batches of each process in a step of the optimiser
    windows : what is shuffled together, see :func:`epoch_order`
    epoch : asked when an epoch's first batch is. Being told (Lightning's ``set_epoch``) comes too late in a resumed
        run, whose workers have fetched ahead by then.
    skip : epoch and number of steps that an earlier run has made of it
    """

    def __init__(
        self, rows: Int64, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1,
        accumulate: int = 1, windows: Windows | None = None, epoch: Callable[[], int] = lambda: 0,
        skip: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.all_rows, self.batch_size, self.seed, self.shuffle = rows, batch_size, seed, shuffle
        self.rank, self.world, self.windows, self.epoch, self.skip = rank, world, windows, epoch, skip
        full = len(rows) // batch_size
        if shuffle:
            self.total = max(full, 1)
            if self.total < world * accumulate:
                what = f"the {world} processes" if accumulate == 1 else f"a step's {world * accumulate}"
                raise ConfigurationError(
                    f"{len(rows)} training samples make {self.total} batches of {batch_size}, fewer than {what}: "
                    "choose a smaller data.batch_size" + (" or trainer.accumulate" if accumulate > 1 else "")
                )
            self.steps = self.total // (world * accumulate) * accumulate
        else:
            self.total = -(-len(rows) // batch_size)
            self.steps = -(-self.total // world)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int, Int64, float]]:
        rows, epoch = self.all_rows, self.epoch()
        if self.shuffle:
            rows = epoch_order(rows, self.windows, self.seed, epoch)
        for step in range(self.skip[1] if epoch == self.skip[0] else 0, self.steps):
            number = step * self.world + self.rank
            there = number < self.total
            first = (number if there else 0) * self.batch_size
            yield epoch, number, rows[first : first + self.batch_size], 1.0 if there else 0.0
