"""No network: for an objective that brings its own, such as a user's LightningModule."""

from typing import Any

from torch import nn

from assay import own


class Nothing(nn.Module):
    """Has no parameters and no features, and cannot be called.

    Attributes:
        context: for texts without labels, how many tokens an example has.
    """

    features = 0
    blocks = ()

    def __init__(self, context: int | None = None) -> None:
        super().__init__()
        self.context = context


def build(facts: dict[str, Any], *, context: int | None = None) -> nn.Module:
    """Build a module without parameters.

    Args:
        facts: what the data set states about itself.
        context: tokens of an example, where the data is one stream of tokens.

    Raises:
        JobError: the data is a stream, and `context` is missing.
    """
    is_stream = facts.get("input") == "text" and facts.get("tokens_per_text") is None
    if is_stream and not (context and context > 0):
        raise own.fault("model none", "set `context`: how many tokens an example has")
    return Nothing(context)
