"""Masked autoencoder (MAE): reconstruct masked patches from the visible ones, without labels."""

from typing import Annotated

import pytorch_lightning as pl
import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from assay.models.vit import Block, sine_cosine_positions
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

REQUIRED = ("embed", "encode", "patches", "grid")  # attributes of the backbone
EPSILON = 1e-6  # added to a patch's variance, which may be 0


class MaskedAutoencoder(pl.LightningModule):
    """Mean squared error on the masked patches, which the backbone never sees.

    The backbone encodes the visible patches only; a small transformer decodes them together with a
    learned mask token for each masked patch.

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
        masked_fraction: Annotated[float, Gt(0), Lt(1)] = 0.75,
        decoder_layers: Annotated[int, Gt(0)] = 8,
        decoder_heads: Annotated[int, Gt(0)] = 16,
        decoder_width: Annotated[int, Gt(0)] = 512,
        normalised: bool = True,
    ) -> None:
        """Put a decoder behind a backbone.

        Args:
            backbone: has the methods of model vit for patches: `grid` (rows, columns),
                `patches(images)` -> pixels (n, patches, pixels of a patch), `embed(images)` ->
                embedded patches (n, patches, `features`), and `encode` of some of those -> their
                features.
            info: of the data set.
            masked_fraction: fraction of an image's patches that is masked.
            decoder_layers: number of transformer layers of the decoder.
            decoder_heads: number of attention heads per layer; must divide `decoder_width`.
            decoder_width: length of a patch's embedding in the decoder; a multiple of 4.
            normalised: normalise the pixels of each target patch to mean 0 and variance 1, so that
                structure counts more than contrast.

        Raises:
            JobError: the backbone has no patches or only one, or `decoder_width` is not a multiple
                of 4 and of `decoder_heads`.
        """
        super().__init__()
        _check(backbone, decoder_heads, decoder_width)
        rows, columns = backbone.grid
        self.backbone = backbone
        self.decoder_embedding = nn.Linear(backbone.features, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_width))
        positions = sine_cosine_positions(rows, columns, decoder_width).flatten(0, 1)
        self.register_buffer("positions", positions, persistent=False)
        self.decoder = nn.Sequential(
            *(Block(decoder_width, decoder_heads) for _ in range(decoder_layers)),
            nn.LayerNorm(decoder_width),
        )
        pixels = backbone.patches(torch.zeros(1, *info.shape)).shape[2]
        self.prediction = nn.Linear(decoder_width, pixels)
        patches = rows * columns
        self.masked_count = min(patches - 1, max(1, round(patches * masked_fraction)))
        self.normalised = normalised

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self._loss(batch["image"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("validation_loss", self._loss(batch["image"]), batch_size=len(batch["image"]))

    def _loss(self, images: Tensor) -> Tensor:
        patches = self.backbone.patches(images)
        order = torch.rand(patches.shape[:2], device=images.device).argsort(1)
        masked, visible = order[:, : self.masked_count], order[:, self.masked_count :]
        encoded = self.backbone.encode(_select(self.backbone.embed(images), visible))
        targets = _select(patches, masked)
        if self.normalised:
            variance, mean = torch.var_mean(targets, 2, keepdim=True)
            targets = (targets - mean) / (variance + EPSILON).sqrt()
        return (self._reconstruct(encoded, visible, masked) - targets).square().mean()

    def _reconstruct(self, encoded: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict the pixels of the masked patches: (n, masked, pixels).

        Attention ignores order, so the masked patches may follow the visible ones.
        """
        visible_tokens = self.decoder_embedding(encoded) + self.positions[visible]
        mask_tokens = self.mask_token + self.positions[masked]
        decoded = self.decoder(torch.cat([visible_tokens, mask_tokens], 1))
        return self.prediction(decoded[:, visible.shape[1] :])


def _check(backbone: nn.Module, heads: int, width: int) -> None:
    if not all(hasattr(backbone, name) for name in REQUIRED):
        kind = type(backbone).__name__
        what = f"objective masked_autoencoder: needs patches, which {kind} does not have"
        raise JobError(f"{what}: choose model vit or objective masked_image", ExitCode.DATA)
    rows, columns = backbone.grid
    if rows * columns < 2:
        what = "objective masked_autoencoder: an image has a single patch"
        raise JobError(f"{what}: reduce the model's patch_pixels", ExitCode.DATA)
    if width % heads or width % 4:
        raise JobError(
            f"objective masked_autoencoder: decoder_width is {width}: choose a multiple of 4 and "
            f"of decoder_heads ({heads})",
            ExitCode.DATA,
        )


def _select(patches: Tensor, index: Tensor) -> Tensor:
    """Select patches of each image: (n, all, width), (n, some) -> (n, some, width)."""
    return patches.gather(1, index.unsqueeze(2).expand(-1, -1, patches.shape[2]))
