"""A study of a few lines runs to a report."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checkout import Checkout

DIGITS = """schema: 2
study: short
prepare: { dataset: digits }
model: { name: cnn, width: 4, features: 8 }
finetune: { steps: 2 }
experiments: { scratch: {} }
"""
IMAGES = """schema: 2
study: short
seeds: 2
prepare:
  dataset: { name: image_folder, folder: my_images, pixels: 8 }
model: { name: resnet, width: 4, features: 8 }
pretrain: { contrastive: { objective: simclr, steps: 2, batch_size: 4 } }
finetune: { steps: 2, batch_size: 4, learning_rate: 1e-3 }
experiments:
  scratch: {}
  finetuned: { pretraining: contrastive }
"""


def write_images(folder: Path) -> None:
    """Write small PNG images of two classes."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True)
        for each in range(20):
            pixels = random.integers(0, 100, (12, 10, 3), dtype=np.uint8) + np.uint8(100 * number)
            Image.fromarray(pixels).save(folder / name / f"{each}.png")


@pytest.mark.parametrize(
    "text",
    [pytest.param(DIGITS, id="digits"), pytest.param(IMAGES, id="images", marks=pytest.mark.slow)],
)
def test_a_study_of_at_most_twelve_lines_runs_to_a_report(text: str, checkout: Checkout) -> None:
    assert len(text.splitlines()) <= 12
    write_images(checkout.folder / "my_images")
    (checkout.folder / "short.yaml").write_text(text)
    seeds = [] if "seeds" in text else ["--config", "seeds=1"]
    checkout.snakemake("--configfile", "short.yaml", *seeds)
    page = (checkout.folder / "reports" / "short" / "index.html").read_text()
    assert "scratch" in page and "accuracy" in page
    assert "null" not in page and "None" not in page
