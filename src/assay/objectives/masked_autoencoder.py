"""Learning to fill in hidden patches of an image from the visible ones alone, without labels."""

from typing import Annotated

import pytorch_lightning as pl
import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from assay.models.vit import Block, sine_cosine
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

NEEDED = ("embed", "encode", "patches", "grid")
SMALLEST_VARIANCE = 1e-6  # of a patch's pixels: a patch of one colour has none


class MaskedAutoencoder(pl.LightningModule):
    """Mean squared error on the hidden patches, which the backbone never sees.

    The backbone encodes the visible patches alone; a light transformer decodes them together with
    a learnt token in place of each hidden one.

    Source: He et al., Masked autoencoders are scalable vision learners (CVPR 2022).
    """

    INPUTS = ("image",)
    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        masked_fraction: Annotated[float, Gt(0), Lt(1)],
        decoder_layers: Annotated[int, Gt(0)],
        decoder_heads: Annotated[int, Gt(0)],
        decoder_width: Annotated[int, Gt(0)],
        normalised: bool,
    ) -> None:
        """Put a decoder behind a backbone.

        Args:
            backbone: works on patches, as model vit does: `grid` (rows, columns), `patches(images)`
                -> pixels (n, patches, pixels of a patch), `embed(images)` -> embedded patches (n,
                patches, `features`), and `encode` of some of those -> their features.
            info: what the data set states about itself.
            masked_fraction: the share of an image's patches that is hidden.
            decoder_layers: transformer layers of the decoder.
            decoder_heads: of attention, in each of them; a divisor of `decoder_width`.
            decoder_width: numbers that describe a patch in the decoder, a multiple of 4.
            normalised: the pixels of each patch are brought to mean 0 and variance 1 before they
                are compared, so that its structure counts and not its contrast.

        Raises:
            JobError: the backbone has no patches, too few of them, or `decoder_width` does not fit.
        """
        super().__init__()
        _check(backbone, decoder_heads, decoder_width)
        rows, columns = backbone.grid
        self.backbone = backbone
        self.narrowing = nn.Linear(backbone.features, decoder_width)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_width))
        positions = sine_cosine(rows, columns, decoder_width).flatten(0, 1)
        self.register_buffer("positions", positions, persistent=False)
        self.decoder = nn.Sequential(
            *(Block(decoder_width, decoder_heads) for _ in range(decoder_layers)),
            nn.LayerNorm(decoder_width),
        )
        pixels = backbone.patches(torch.zeros(1, *info.shape)).shape[2]
        self.painting = nn.Linear(decoder_width, pixels)
        self.hidden = min(rows * columns - 1, max(1, round(rows * columns * masked_fraction)))
        self.normalised = normalised

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self._loss(batch["image"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("validation_loss", self._loss(batch["image"]), batch_size=len(batch["image"]))

    def _loss(self, images: Tensor) -> Tensor:
        patches = self.backbone.patches(images)
        order = torch.rand(patches.shape[:2], device=images.device).argsort(1)
        hidden, visible = order[:, : self.hidden], order[:, self.hidden :]
        encoded = self.backbone.encode(_chosen(self.backbone.embed(images), visible))
        targets = _chosen(patches, hidden)
        if self.normalised:
            variance, mean = torch.var_mean(targets, 2, keepdim=True)
            targets = (targets - mean) / (variance + SMALLEST_VARIANCE).sqrt()
        return (self._painted(encoded, visible, hidden) - targets).square().mean()

    def _painted(self, encoded: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """The hidden patches' pixels: (n, hidden, pixels).

        Attention does not care for order, so the hidden ones may simply stand behind the visible.
        """
        seen = self.narrowing(encoded) + self.positions[visible]
        unseen = self.token + self.positions[hidden]
        decoded = self.decoder(torch.cat([seen, unseen], 1))
        return self.painting(decoded[:, visible.shape[1] :])


def _check(backbone: nn.Module, heads: int, width: int) -> None:
    if not all(hasattr(backbone, name) for name in NEEDED):
        kind = type(backbone).__name__
        what = f"objective masked_autoencoder needs patches, which {kind} has not"
        raise JobError(f"{what}: choose model vit, or objective masked_image", ExitCode.DATA)
    rows, columns = backbone.grid
    if rows * columns < 2:
        what = "objective masked_autoencoder: an image is a single patch"
        raise JobError(f"{what}: choose smaller patch_pixels", ExitCode.DATA)
    if width % heads or width % 4:
        raise JobError(
            f"objective masked_autoencoder: decoder_width is {width}: a multiple of 4 and of "
            f"decoder_heads ({heads}) is needed",
            ExitCode.DATA,
        )


def _chosen(patches: Tensor, which: Tensor) -> Tensor:
    """Some patches of each image: (n, all, width), (n, some) -> (n, some, width)."""
    return patches.gather(1, which.unsqueeze(2).expand(-1, -1, patches.shape[2]))
