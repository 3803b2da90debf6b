"""Fashion-MNIST: 70,000 pieces of clothing of 28x28 grey pixels."""

from typing import Annotated

import numpy as np
from annotated_types import Gt

from assay.data import idx, splitting
from assay.runs.data_info import DataInfo

URLS = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
VALIDATION_EXAMPLES = 6000
INFO = DataInfo(
    title="Fashion-MNIST",
    source="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    citation="Xiao, Rasul, Vollgraf (2017): Fashion-MNIST: a novel image dataset for "
    "benchmarking machine learning algorithms. arXiv:1708.07747",
    sha256={
        "train-images-idx3": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    split="the official training part, except its last 6,000 images, which are for validation; "
    "the official test part",
    shape=(1, 28, 28),
    classes=10,
    class_names=[
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ],
    examples={"train": 54000, "validation": 6000, "test": 10000},
    labels_per_class=5367,
)  # fmt: skip


def prepare(
    *, training_examples: Annotated[int, Gt(0)] | None = None
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Get the four official files and split them.

    Args:
        training_examples: number of training examples, the first ones; all by default.

    Returns:
        Split -> {`image`: uint8 (n, 1, 28, 28), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: a file cannot be downloaded, or is not the one that `INFO` describes.
    """
    official = idx.fetch("fashion-mnist", URLS, INFO.sha256)
    return splitting.split_off_validation(official, VALIDATION_EXAMPLES, INFO, training_examples)
