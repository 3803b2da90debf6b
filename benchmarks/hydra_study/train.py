"""The study as a Hydra application of the form that Lightning projects commonly have.

Usage: python train.py --config-dir <study> --multirun stage=pretrain run=self_supervised seed=0,1
and then with stage=finetune and the experiments' names, where <study> holds a completed study in
config.yaml; `benchmarks/pipeline.py` does so. Each run leaves a folder with its configuration, log,
history, best checkpoint and metrics.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Train, test where the stage says so, and write what was measured."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    torch.set_num_threads(config.study.threads)
    pl.seed_everything(config.seed, verbose=False)
    config.settings = settings(config.study, config.stage, config.run)
    data, module, trainer = (
        instantiate(config[part], _convert_="all") for part in ("data", "module", "trainer")
    )
    trainer.fit(module, datamodule=data)
    if config.test:
        trainer.test(module, datamodule=data, ckpt_path="best", verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    Path(config.folder, "metrics.json").write_text(json.dumps(metrics))


def settings(study: DictConfig, stage: str, run: str) -> DictConfig:
    """What the study says of a run."""
    if stage == "pretrain":
        return study.pretrain[run]
    return OmegaConf.create({**study.finetune, **study.experiments[run]})


if __name__ == "__main__":
    main()
