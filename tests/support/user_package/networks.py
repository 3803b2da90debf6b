"""Networks, and functions that build them, right or wrong."""

from torch import nn


class SmallNet(nn.Module):
    def __init__(self, width, info, depth=2):
        super().__init__()
        channels = info.shape[0]
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.layers = nn.Sequential(
            *(part for _ in range(depth) for part in (nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()))
        )

    def forward(self, images):
        return self.layers(self.stem(images))


class Words(nn.Module):
    VOCABULARY_WEIGHTS = ("embedding.weight",)
    context_length = 16

    def __init__(self, info):
        super().__init__()
        self.embedding = nn.Embedding(info.vocab_size, 6)

    def forward(self, tokens):
        return self.embedding(tokens)

    def logits(self, features):
        return features @ self.embedding.weight.T


def lazy(features):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(features), nn.ReLU())


def pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    return Pair()


def flat():
    return nn.Flatten(1, 2)


def nothing():
    return 3


constant = 3
