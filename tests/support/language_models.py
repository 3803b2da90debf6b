"""Small language models and their objective."""

from typing import Any

import torch

from assay.models import gpt
from assay.objectives.next_token import NextToken
from assay.runs.data_info import DataInfo

POSITIONS = ("rotary", "learned")
SMALL: dict[str, Any] = {
    "layers": 2, "heads": 2, "width": 16, "context_length": 12, "positions": "rotary",
    "dropout": 0.0, "tie_embeddings": True,
}  # fmt: skip
LETTERS = "abcdefgh \n"
INFO = DataInfo(
    input="text", vocab_size=len(LETTERS) + 1, padding=None, end_of_text=None,
    tokens={"test": 300}, bytes={"test": 200},
)  # fmt: skip


def network(vocab_size: int = INFO.vocab_size, seed: int = 0, **changes: Any) -> gpt.GPT:
    torch.manual_seed(seed)
    return gpt.build(DataInfo(vocab_size=vocab_size), **(SMALL | changes)).eval()


def objective(info: DataInfo = INFO, **changes: Any) -> NextToken:
    return NextToken(network(info.vocab_size, **changes), info)


def random_tokens(
    shape: tuple[int, ...], seed: int, vocab_size: int = INFO.vocab_size
) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))
