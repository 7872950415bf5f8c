"""ResNets in a few lines of PyTorch (He et al. 2015), with random weights: for latency, and for what torch exports."""

from torch import nn


class Block(nn.Module):
    """Basic (expansion 1) or bottleneck (4) residual block."""

    def __init__(self, c_in, c, stride, bottleneck):
        super().__init__()
        c_out = c * 4 if bottleneck else c
        if bottleneck:
            self.conv1, self.bn1 = nn.Conv2d(c_in, c, 1, bias=False), nn.BatchNorm2d(c)
            self.conv2, self.bn2 = nn.Conv2d(c, c, 3, stride, 1, bias=False), nn.BatchNorm2d(c)
            self.conv3, self.bn3 = nn.Conv2d(c, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        else:
            self.conv1, self.bn1 = nn.Conv2d(c_in, c, 3, stride, 1, bias=False), nn.BatchNorm2d(c)
            self.conv2, self.bn2 = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c)
        self.bottleneck = bottleneck
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet with the module names of torchvision's."""

    def __init__(self, blocks, bottleneck, width=64, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        c_in = width
        for i, n in enumerate(blocks):
            c = width * 2**i
            layers = []
            for j in range(n):
                layers.append(Block(c_in, c, 2 if i and not j else 1, bottleneck))
                c_in = c * 4 if bottleneck else c
            setattr(self, f"layer{i + 1}", nn.Sequential(*layers))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(c_in, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(**sizes):
    return ResNet([2, 2, 2, 2], False, **sizes)


def resnet50(**sizes):
    return ResNet([3, 4, 6, 3], True, **sizes)
