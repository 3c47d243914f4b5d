"""Networks of the papers and tutorials, written anew in the plainest words: what ours are compared with."""

import torch
from torch import nn
from torch.nn import functional as F


class PaperBlock(nn.Module):
    """Section 4.2 in the plainest words: two 3x3 convolutions and an identity padded with zeros."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.a, self.na = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.b, self.nb = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x):
        identity = x[:, :, :: self.stride, :: self.stride]
        if self.before != self.after:
            zeros = torch.zeros(len(x), (self.after - self.before) // 2, *identity.shape[2:])
            identity = torch.cat([zeros, identity, zeros], dim=1)
        return torch.relu(self.nb(self.b(torch.relu(self.na(self.a(x))))) + identity)


class PaperCifarNet(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        widths = [16] * n + [32] * n + [64] * n
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.ModuleList(
            PaperBlock(before, after, 1 if before == after else 2)
            for before, after in zip([16, *widths], widths, strict=False)
        )
        self.classify = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classify(x.mean((2, 3)))


class PaperPlainNet(PaperCifarNet):
    """The same layers without the identities."""

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = torch.relu(block.nb(block.b(torch.relu(block.na(block.a(x))))))
        return self.classify(x.mean((2, 3)))


class PreactUnit(nn.Module):
    """The second paper's Figure 4e: BatchNorm, ReLU, convolution; the sum is left as it is."""

    def __init__(self, before: int, width: int, after: int, stride: int, bottleneck: bool, both: bool) -> None:
        super().__init__()
        shapes = [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
        if not bottleneck:
            shapes = [(before, width, 3, stride), (width, after, 3, 1)]
        layers = []
        for channels, out, kernel, step in shapes:
            # Our parameters come convolution first; the pairs are put in that order, and applied norm first.
            layers += [nn.Conv2d(channels, out, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(channels)]
        self.layers = nn.ModuleList(layers)
        self.project = nn.Conv2d(before, after, 1, stride, bias=False) if before != after and bottleneck else None
        self.before, self.after, self.stride, self.both = before, after, stride, both or before != after

    def forward(self, x):
        activated = torch.relu(self.layers[1](x))
        out = self.layers[0](activated)
        for place in range(2, len(self.layers), 2):
            out = self.layers[place](torch.relu(self.layers[place + 1](out)))
        identity = activated if self.both else x
        if self.project is not None:
            identity = self.project(identity)
        elif self.before != self.after:
            identity = identity[:, :, :: self.stride, :: self.stride]
            zeros = torch.zeros(len(x), (self.after - self.before) // 2, *identity.shape[2:])
            identity = torch.cat([zeros, identity, zeros], dim=1)
        return out + identity


class PreactNet(nn.Module):
    def __init__(self, n: int, bottleneck: bool) -> None:
        super().__init__()
        grow = 4 if bottleneck else 1
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        units, before = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for number in range(n):
                stride = 2 if stage > 0 and number == 0 else 1
                units.append(PreactUnit(before, width, width * grow, stride, bottleneck, both=not units))
                before = width * grow
        self.units = nn.Sequential(*units)
        self.norm, self.classify = nn.BatchNorm2d(before), nn.Linear(before, 10)

    def forward(self, x):
        return self.classify(torch.relu(self.norm(self.units(self.stem(x)))).mean((2, 3)))


class TutorialBlock(nn.Module):
    """Tutorial 1: two 3x3 convolutions on the left; on the right nothing, or a 1x1 convolution with BatchNorm."""

    def __init__(self, before: int, after: int, stride: int, right: bool) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        projection = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.right = nn.Sequential(*(projection if right else []))

    def forward(self, x):
        return F.relu(self.left(x) + self.right(x))


class TutorialNet(nn.Sequential):
    """Tutorial 1's 3-4-6-3, 128-256-512-512; 7x7 pooling at 224 px is global pooling."""

    def __init__(self) -> None:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        before = 64
        for after, count, stride in ((128, 3, 1), (256, 4, 2), (512, 6, 2), (512, 3, 2)):
            for number in range(count):
                layers.append(TutorialBlock(before, after, stride if number == 0 else 1, right=number == 0))
                before = after
        super().__init__(*layers, nn.AvgPool2d(7), nn.Flatten(), nn.Linear(512, 1000))


class D2LBlock(nn.Module):
    """The tutorial's block: convolutions with bias, and a bare 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after)
        self.c2, self.n2 = nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after)
        self.c3 = nn.Conv2d(before, after, 1, stride) if stride != 1 else None

    def forward(self, x):
        y = self.n2(self.c2(F.relu(self.n1(self.c1(x)))))
        return F.relu(y + (x if self.c3 is None else self.c3(x)))


class D2LNet(nn.Sequential):
    def __init__(self) -> None:
        stem = [nn.Conv2d(1, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        shapes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
        blocks = [D2LBlock(*shape) for shape in [*shapes, (512, 512, 1)]]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
