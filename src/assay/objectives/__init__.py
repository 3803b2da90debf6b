"""Training objectives: one file and one LightningModule each, found by name."""
