"""LightningModules, right or wrong."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional


class LitNet(pl.LightningModule):
    def __init__(self, width, rate=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(width, 3)

    def forward(self, images):
        return functional.log_softmax(self.head(self.dropout(self.encoder(images))), dim=1)

    def training_step(self, batch, batch_idx):
        images, label = batch
        loss = functional.nll_loss(self(images), label)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        images, label = batch
        logits = self(images)
        self.log("val_loss", functional.nll_loss(logits, label), prog_bar=True)
        self.log("val_acc", (logits.argmax(1) == label).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss", "interval": "epoch"},
        }


class Hooked(LitNet):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen = batch_idx


class Autoencoder(pl.LightningModule):
    def __init__(self, encoder, hidden):
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Linear(encoder.features, hidden)
        self.out = nn.Linear(hidden, 64)

    def training_step(self, images):
        decoded = self.out(torch.relu(self.decoder(self.encoder(images))))
        return functional.mse_loss(decoded, images.flatten(1))

    def validation_step(self, images, batch_idx):
        self.log("val_loss", self.training_step(images))


class Stepless(pl.LightningModule):
    pass


class Measured(LitNet):
    def predict_step(self, batch, batch_idx):
        images, label = batch
        return {"wrong": (self(images).argmax(1) != label).long()}

    def metrics(self, predictions):
        return {"accuracy": 1 - float(predictions["wrong"].mean()), "loss": 0.0}


class Taken(LitNet):
    def __init__(self, width):
        super().__init__(width)
        self.metrics = nn.ModuleDict()


class Nested(LitNet):
    def __init__(self, encoder):
        super().__init__(8)
        self.inner = nn.ModuleDict({"encoder": encoder})


class Careless(LitNet):
    def __init__(self, encoder):
        super().__init__(8)


class Odd(LitNet):
    def forward(self, images):
        return self.encoder(images)
