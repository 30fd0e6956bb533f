"""What is trained and where its results go, in a few lines at the start."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info


class RunSummary(L.Callback):
    """Says how many parameters each part has, and where logs and checkpoints go."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say it; asking for the folder takes all ranks."""
        folder = str(trainer.log_dir or trainer.default_root_dir).rstrip("/")
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in pl_module.named_children()}
        lines = ["parameters: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            writers = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
            kept = [str(c.dirpath) for c in writers if c.save_last or c.save_top_k]
            lines.append(f"logs and config.yaml in {folder}" + (f"; checkpoints in {', '.join(kept)}" if kept else ""))
        rank_zero_info("\n".join(lines))
