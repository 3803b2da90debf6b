"""No network: for an objective that has its own, such as a user's LightningModule."""

from torch import nn

from assay.nn import user_modules
from assay.runs.data_info import DataInfo


class NoNetwork(nn.Module):
    """A module without parameters, features and `forward`.

    Attributes:
        context_length: number of tokens of an example, for texts without labels.
    """

    features = 0
    blocks = ()

    def __init__(self, context_length: int | None = None) -> None:
        super().__init__()
        self.context_length = context_length


def build(info: DataInfo, *, context_length: int | None = None) -> nn.Module:
    """Build a module without parameters.

    Args:
        info: of the data set.
        context_length: number of tokens of an example; required for texts without labels.

    Raises:
        JobError: the texts have no labels, and `context_length` is missing.
    """
    is_stream = info.is_stream
    if is_stream and not (context_length and context_length > 0):
        raise user_modules.user_error(
            "model none", "set `context_length`, the number of tokens of an example"
        )
    return NoNetwork(context_length)
