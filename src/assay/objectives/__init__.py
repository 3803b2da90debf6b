"""What is learnt: one file each, holding one LightningModule, found by its name."""
