"""No network: for an objective that brings its own, such as a user's LightningModule."""

from torch import nn

from assay.nn import user_modules
from assay.runs.data_info import DataInfo


class Nothing(nn.Module):
    """Has no parameters and no features, and cannot be called.

    Attributes:
        context_length: for texts without labels, how many tokens an example has.
    """

    features = 0
    blocks = ()

    def __init__(self, context_length: int | None = None) -> None:
        super().__init__()
        self.context_length = context_length


def build(info: DataInfo, *, context_length: int | None = None) -> nn.Module:
    """Build a module without parameters.

    Args:
        info: what the data set states about itself.
        context_length: tokens of an example, where the data is one stream of tokens.

    Raises:
        JobError: the data is a stream, and `context_length` is missing.
    """
    is_stream = info.is_stream
    if is_stream and not (context_length and context_length > 0):
        raise user_modules.user_error(
            "model none", "set `context_length`: how many tokens an example has"
        )
    return Nothing(context_length)
