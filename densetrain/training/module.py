"""The LightningModule: what a step does. Devices, precision, loops and files are Lightning's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from densegen.arrays import Int64
from densegen.index.vertex_index import VertexIndex
from densetrain.config import FitSettings
from densetrain.data.augment import Draws, augment, draw_noise
from densetrain.data.batches import Batch
from densetrain.data.order import step_seed
from densetrain.errors import TrainingError
from densetrain.network.description import CHECKPOINT_KEY, PROCESSES_KEY, Description
from densetrain.network.model import LandmarkNet
from densetrain.training.losses import LandmarkLoss, gaussian_nll, squared_sigmas

__all__ = ["LOG_EVERY", "LandmarkModule"]

LOSS_KEY = "densetrain_loss_of_epoch"
"""In a checkpoint: the mean loss of its epoch so far, and of how many samples of each process."""

ADVICE = "earlier checkpoints stay as they are; try a smaller optimiser.lr or trainer.clip"

LOG_EVERY = 10
"""Steps between the numbers of logs and bar: each waits for the device."""

LOOK_EVERY = 16
"""Steps between looks at the losses: each look waits for the device."""


class LandmarkModule(pl.LightningModule):
    """A network, its loss, its augmentation, its optimiser, and what its checkpoints say about themselves.

    about : goes into the checkpoints
    sample_ids : names for errors
    has_begun : whether training has, so everything is restored from an earlier run's checkpoint
    """

    mirror: Tensor

    def __init__(self, about: Description, index: VertexIndex, sample_ids: Sequence[str] | None = None) -> None:
        super().__init__()
        self.about = about
        self.settings: FitSettings = about.settings
        self.net = LandmarkNet(self.settings.model, len(index), about.crop_size)
        self.loss = LandmarkLoss(self.settings.loss, index)
        self.register_buffer("mirror", torch.tensor(index.mirror), persistent=False)
        self._closed = index.mirror_closed
        self._flip_line: tuple[float, float] | None = None
        self._sample_ids = sample_ids
        self._run_net: Callable[[Tensor], Tensor] = self.net.of_resized
        self._augment: Callable[..., tuple[Tensor, Tensor]] = augment
        self._watched: list[tuple[Tensor, Int64]] = []
        self._loss_sum: Tensor | float = 0.0
        self._loss_count = 0
        self.has_begun = False

    def on_train_start(self) -> None:
        self.has_begun = True

    def on_fit_start(self) -> None:
        if self.settings.trainer.compile:
            options = self._compiler_options() if self.device.type == "cuda" else None
            torch._dynamo.reset()  # it counts what it has compiled in this process, and gives up at the ninth
            self._run_net = torch.compile(self.net.of_resized, dynamic=False, options=options)
            self._augment = torch.compile(augment, fullgraph=True, dynamic=False)

    def _compiler_options(self) -> dict[str, Any]:
        settings = self.settings.trainer
        return {
            # Without being told, the compiled backward pass of torch 2.14 lays out depthwise layers anew.
            "force_layout_optimization": settings.channels_last,
            # One launch for all kernels of a pass. The gradients lie where the next pass writes its own, so they
            # cannot be added up, and no other process's hooks can be waiting for them.
            "triton.cudagraphs": settings.accumulate == 1 and self.trainer.world_size == 1,
        }

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) RGB 0 to 255 -> what :class:`LandmarkNet` gives."""
        answer: Tensor = self.net(self._laid_out(images))
        return answer

    def _laid_out(self, images: Tensor) -> Tensor:
        last = self.settings.trainer.channels_last
        return images.contiguous(memory_format=torch.channels_last) if last else images

    def _losses(self, answer: Tensor, truth: Tensor) -> Tensor:
        """(B,) loss of each sample; answer : (B, N, 3), or (B, N, 4) with the logarithm of sigma."""
        losses: Tensor = self.loss(answer[..., :3], truth)
        if not self.settings.model.uncertainty:
            return losses
        return losses + self.settings.loss.nll_weight * gaussian_nll(answer[..., :3], truth, answer[..., 3])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed = step_seed(self.settings.seed, batch["epoch"], batch["number"])
        self._seed(seed)
        images, landmarks = self._augmented(batch, seed)
        losses = self._losses(self._run_net(self._laid_out(images)), landmarks)
        self._watched.append((losses.detach(), batch["rows"]))
        if len(self._watched) >= LOOK_EVERY:
            self._raise_if_not_finite()
        loss: Tensor = losses.mean()
        self._loss_sum, self._loss_count = self._loss_sum + loss.detach() * len(images), self._loss_count + len(images)
        if self._is_logged:
            self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(images))
        return loss

    def _seed(self, seed: int) -> None:
        """Seed what dropout draws from. ``torch.manual_seed`` does the same for every kind of device there is, which
        takes the host a millisecond.
        """
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)
        torch.default_generator.manual_seed(seed)

    @property
    def _is_logged(self) -> bool:
        """Whether the logs get this step: to ask Lightning at every one costs the host a millisecond or two."""
        return bool((self.global_step + 1) % LOG_EVERY == 0)

    def on_train_epoch_end(self) -> None:
        self.log("train_loss_epoch", self._loss_sum / max(self._loss_count, 1), sync_dist=True)
        self._loss_sum, self._loss_count = 0.0, 0

    def _augmented(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        """(B, 3, s, s) float32 images at the size at which the network is trained, and (B, N, 3) landmarks."""
        images, settings = self._images(batch), self.settings.augment
        size = self.settings.schedule.input_size(batch["epoch"], self.settings.model)
        noise = draw_noise(len(images), size, seed, images.device) if settings.noise else None
        mirror = self.mirror if settings.flip else None
        return self._augment(
            images, batch["landmarks"], Draws.unpacked(batch["draws"]), size=size, mirror=mirror, noise=noise
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        answer, truth, weight = self(self._images(batch)), batch["landmarks"], batch["weight"]
        predicted = answer[..., :3]
        box = batch["keypoints68"][..., :2]
        size = (box.amax(dim=1) - box.amin(dim=1)).prod(dim=1).sqrt()
        difference = predicted.float() - truth
        values = {
            "val_loss": self._losses(answer, truth),
            "val_nme": _nme(difference[..., :2], size),
            "val_nme_3d": _nme(difference, size),
            "val_nme_constant": _nme((self.net.mean_landmarks - truth)[..., :2], size),
        }
        if self.settings.model.uncertainty:
            values["val_squared_sigmas"] = squared_sigmas(predicted, truth, answer[..., 3])
        if self._closed:
            distance, error = self._flip_test(batch, predicted.float(), size)
            values["val_nme_flip_test"] = error
            values |= {"flip_distance": distance, "flip_squares": distance**2, "flip_products": distance * error}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + (value.to(self._exact) * weight).sum()
        self._sums["count"] = self._sums.get("count", 0.0) + weight.to(self._exact).sum()

    def _flip_test(self, batch: Batch, predicted: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) how far the two answers of a flip test lie apart, and how far off their mean is; percent, 2D.

        size : (B,) sqrt(w h) of the box of the true 68
        """
        back = self(self._images(batch).flip(-1))[..., :3].float()[:, self.mirror]
        back[..., 0] = self.about.crop_size - 1 - back[..., 0]
        mean = 0.5 * (predicted + back)
        return _nme((predicted - back)[..., :2], size), _nme((mean - batch["landmarks"])[..., :2], size)

    def on_validation_epoch_start(self) -> None:
        self._raise_if_not_finite()
        self._sums: dict[str, Any] = {}
        self._exact = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's devices have no float64

    def on_validation_epoch_end(self) -> None:
        sums = {name: self._sum_over_processes(value) for name, value in self._sums.items()}
        if self._closed:
            self._flip_line = _line(*(
                float(sums[name] / sums["count"])
                for name in ("flip_distance", "val_nme_flip_test", "flip_squares", "flip_products")
            ))  # fmt: skip
        for name, value in sums.items():
            if name.startswith("val_"):
                # Single precision is what loggers and checkpoints of every device hold.
                mean = (value / sums["count"]).float()
                if not bool(mean.isfinite()):
                    raise TrainingError(f"{name} is not finite in epoch {self.current_epoch + 1}: {ADVICE}")
                self.log(name, mean, prog_bar=name == "val_nme", sync_dist=True)

    def _sum_over_processes(self, value: Tensor) -> Tensor:
        summed: Any = self.trainer.strategy.reduce(value, reduce_op="sum")
        return torch.as_tensor(summed)

    def configure_optimizers(self) -> Any:
        settings = self.settings.optimiser
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimiser: torch.optim.Optimizer
        if settings.name == "sgd":
            optimiser = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
        else:
            optimiser = torch.optim.AdamW(groups, lr=settings.lr, fused=self.settings.trainer.precision != "fp16")
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        per_epoch = max(steps / self.settings.trainer.epochs, 1)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.rate(step, steps, per_epoch))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the norm and log it; Lightning clips nothing of a fused optimiser."""
        if gradient_clip_val is None:
            return
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), gradient_clip_val)
        if self._is_logged:
            self.log("gradient_norm", norm)

    def rate(self, step: int, steps: int, per_epoch: float) -> float:
        """The learning rate at a step, as a share of the settings' own."""
        schedule = self.settings.schedule
        warmup = schedule.warmup_epochs * per_epoch
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        if schedule.name == "step":
            passed = sum(step >= milestone * per_epoch for milestone in schedule.milestones)
            return float(schedule.gamma**passed)
        if schedule.name == "cosine":
            return schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2
        if schedule.name == "polynomial":
            return float(schedule.final + (1 - schedule.final) * (1 - done) ** schedule.power)
        return 1.0

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        was = Description.model_validate(checkpoint[CHECKPOINT_KEY])
        names = ("validation_nme", "flip_line", "sigma_scale")
        self.about = self.about.model_copy(update={name: getattr(was, name) for name in names})
        mean, self._loss_count = checkpoint.get(LOSS_KEY, (0.0, 0))
        self._loss_sum = mean * self._loss_count

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        nme = self.trainer.callback_metrics.get("val_nme")
        squares = self.trainer.callback_metrics.get("val_squared_sigmas")
        about = self.about.model_copy(
            update={
                # Before a resumed run has validated, what the checkpoint says that it goes on from.
                "validation_nme": self.about.validation_nme if nme is None else float(nme),
                "flip_line": self._flip_line or self.about.flip_line,
                "sigma_scale": self.about.sigma_scale if squares is None else math.sqrt(float(squares)),
                "mean_landmarks": tuple(map(tuple, self.net.mean_landmarks.double().cpu().numpy().round(3).tolist())),
            }
        )
        checkpoint[CHECKPOINT_KEY] = about.model_dump(mode="json")
        checkpoint[PROCESSES_KEY] = self.trainer.world_size
        mean = torch.as_tensor(self._loss_sum, dtype=torch.float32, device=self.device) / max(self._loss_count, 1)
        checkpoint[LOSS_KEY] = float(self.trainer.strategy.reduce(mean, reduce_op="mean")), self._loss_count

    def _images(self, batch: Batch) -> Tensor:
        """(B, 3, S, S) uint8 on the device."""
        return batch["images"].permute(0, 3, 1, 2)

    def _raise_if_not_finite(self) -> None:
        """Look at the losses since the last look."""
        watched, self._watched = self._watched, []
        if not watched or bool(torch.stack([losses.isfinite().all() for losses, _ in watched]).all()):
            return
        for losses, rows in watched:
            bad = ~losses.isfinite()
            if bool(bad.any()):
                ids = self._sample_ids
                first = [int(row) for row in rows[bad.cpu().numpy()][:3]]
                names = ", ".join(map(str, first if ids is None else [ids[row] for row in first]))
                raise TrainingError(
                    f"the loss is not finite in epoch {self.current_epoch + 1}, for {int(bad.sum())} of {len(losses)} "
                    f"samples, the first {names}: {ADVICE}"
                )


def _nme(difference: Tensor, size: Tensor) -> Tensor:
    """(B,) percent of ``size``, (B,) px: the mean length of (B, N, 2 or 3) differences, px."""
    nme: Tensor = 100 * difference.norm(dim=2).mean(dim=1) / size
    return nme


def _line(x: float, y: float, xx: float, xy: float) -> tuple[float, float]:
    """The straight line of least squares, from the means of x, y, x^2 and x y: its height at 0, and its slope, which
    is not below 0.
    """
    spread = xx - x * x
    slope = max((xy - x * y) / spread, 0.0) if spread > 1e-12 else 0.0
    return y - slope * x, slope
