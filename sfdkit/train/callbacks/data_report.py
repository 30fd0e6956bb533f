"""The data report: rows expected, read and skipped per epoch, and the time that steps waited for data."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.utilities import rank_zero_info

from sfdkit.files import atomic_write
from sfdkit.train.schedule import logs_step
from sfdkit.types import DataAccount

NAME = "data_report.json"


class DataReport(L.Callback):
    """Writes ``data_report.json`` into the run's folder, a log line per epoch and split, and scalars for TensorBoard.

    The scalars are ``data/SPLIT/expected``, ``read`` and ``skipped`` in rows of batches, which obey ``expected = read +
    skipped``, ``repeated_reads``, and ``train/wait_share``: the fraction of the time since it was last logged that was
    spent waiting for batches. An error that ends a training leaves the counts of the rank that failed.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._since = self._waited = 0.0
        self._spent = self._spent_waiting = 0.0
        self._reported: dict[str, DataAccount] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remember the folder; all ranks must ask for it."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the first step."""
        self._since, self._waited = time.perf_counter(), 0.0  # each epoch's loader counts its waiting from 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up the time and the waiting, and log their ratio at logged steps."""
        loader = _loader(trainer, "train")
        if loader is None:
            return
        now, waited = time.perf_counter(), loader.waited
        self._spent += now - self._since
        self._spent_waiting += max(0.0, waited - self._waited)
        self._since, self._waited = now, waited
        if logs_step(trainer):
            share = self._spent_waiting / max(1e-9, self._spent)
            self._spent = self._spent_waiting = 0.0
            pl_module.log("train/wait_share", min(1.0, share), on_step=True, on_epoch=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the epoch."""
        self._report(trainer, "train")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the validation, but not the sanity check."""
        if not trainer.sanity_checking:
            self._report(trainer, "validation")
        self._since = time.perf_counter()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the test."""
        self._report(trainer, "test")

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the prediction."""
        self._report(trainer, "test")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write this rank's counts; the other ranks may have ended."""
        for split in ("train", "validation", "test"):
            loader = _loader(trainer, split)
            account = loader.account() if loader is not None else None
            if account and account["skipped"] and account != self._reported.get(split):
                self._write(split, {trainer.global_rank: account}, type(exception).__name__)

    def _report(self, trainer: L.Trainer, split: str) -> None:
        loader = _loader(trainer, split)
        if loader is None:
            return
        self._reported[split] = loader.account()
        accounts: list[DataAccount | None] = [loader.account()]
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            accounts = [None] * trainer.world_size
            torch.distributed.all_gather_object(accounts, loader.account())
        if not trainer.is_global_zero:
            return
        ranks = {rank: account for rank, account in enumerate(accounts) if account is not None}
        total = self._write(split, ranks)
        reasons = Counter({count.reason: 0 for account in ranks.values() for count in account["skipped"]})
        for account in ranks.values():
            for count in account["skipped"]:
                reasons[count.reason] += count.rows
        why = f" ({', '.join(f'{rows} {reason}' for reason, rows in reasons.most_common())})" if reasons else ""
        again = f"; {total['repeated_reads']} reads repeated" if total["repeated_reads"] else ""
        rank_zero_info(
            f"data, {split}, epoch {ranks[0]['epoch']}: {total['expected']} rows expected = {total['read']} read + "
            f"{total['skipped']} skipped{why}{again}"
        )
        for logger in trainer.loggers:
            logger.log_metrics({f"data/{split}/{name}": float(n) for name, n in total.items()}, trainer.global_step)

    def _write(self, split: str, ranks: dict[int, DataAccount], stopped_by: str = "") -> dict[str, int]:
        """Add an epoch to the file, and return its totals."""
        total = {
            "expected": sum(account["expected"] for account in ranks.values()),
            "read": sum(account["read"] for account in ranks.values()),
            "skipped": sum(count.rows for account in ranks.values() for count in account["skipped"]),
            "repeated_reads": sum(account["repeated_reads"] for account in ranks.values()),
        }
        assert self._folder is not None
        path = self._folder / NAME
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            report = {}
        except ValueError:  # not written by this callback, which never leaves half a file
            path.replace(path.with_name(f"{path.name}.damaged"))
            report = {}
        entry: dict[str, Any] = {"epoch": next(iter(ranks.values()))["epoch"], "total": total}
        if stopped_by:
            entry["stopped_by"] = stopped_by
        entry["ranks"] = [
            {"rank": rank, **account, "skipped": [count._asdict() for count in account["skipped"]]}
            for rank, account in ranks.items()
        ]
        report.setdefault(split, []).append(entry)
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return total


def _loader(trainer: L.Trainer, split: str) -> Any:
    """Return the loader of a split, if the data module is the kit's."""
    return getattr(getattr(trainer, "datamodule", None), "loaders", {}).get(split)
