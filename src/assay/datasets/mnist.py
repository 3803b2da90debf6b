"""MNIST: 70,000 handwritten digits of 28x28 grey pixels."""

from typing import Annotated

import numpy as np
from annotated_types import Gt

from assay.data import idx, splitting
from assay.runs.data_info import DataInfo

URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
VALIDATION_EXAMPLES = 6000
INFO = DataInfo(
    title="MNIST",
    source="http://yann.lecun.com/exdb/mnist/, which no longer serves the files; from mirrors",
    licence="CC BY-SA 3.0",
    citation="LeCun, Bottou, Bengio, Haffner (1998): Gradient-based learning applied to "
    "document recognition. Proceedings of the IEEE 86(11), 2278-2324",
    sha256={
        "train-images-idx3": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    split="the official training part, except its last 6,000 images, which are for validation; "
    "the official test part",
    shape=(1, 28, 28),
    classes=10,
    class_names=["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    examples={"train": 54000, "validation": 6000, "test": 10000},
    labels_per_class=4872,
)


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
    official = idx.fetch("mnist", URLS, INFO.sha256)
    return splitting.split_off_validation(official, VALIDATION_EXAMPLES, INFO, training_examples)
