"""Operation lists of well-known networks, written by hand from their papers; the chip's tests need no torch."""

from __future__ import annotations

from bitline.layers import Operation, OperationKind, Window


class Graph:
    """Builds a list of operations, keeping track of shapes."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.operations: list[Operation] = []
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self._add("input", OperationKind.INPUT, (), (channels, height, width))

    def _add(self, name, kind, inputs, shape, **fields) -> str:
        self.operations.append(Operation(name=name, kind=kind, inputs=inputs, output_shape=shape, **fields))
        self.shapes[name] = shape
        return name

    def conv(self, name: str, source: str, outputs: int, kernel=3, stride=1, pad=None, groups: int = 1) -> str:
        pad = kernel // 2 if pad is None else pad
        channels, height, width = self.shapes[source]
        window = Window(kernel=(kernel, kernel), stride=(stride, stride), padding=(pad,) * 4)
        shape = (outputs, *window.output_size(height, width))
        rows = channels // groups * kernel * kernel
        return self._add(
            name,
            OperationKind.MATRIX,
            (source,),
            shape,
            window=window,
            groups=groups,
            rows=rows,
            columns=outputs // groups,
        )

    def pool(self, name: str, source: str, kernel: int, stride: int, pad=0, kind=OperationKind.MAX_POOL) -> str:
        channels, height, width = self.shapes[source]
        window = Window(kernel=(kernel, kernel), stride=(stride, stride), padding=(pad,) * 4)
        return self._add(name, kind, (source,), (channels, *window.output_size(height, width)), window=window)

    def add(self, name: str, *sources: str) -> str:
        return self._add(name, OperationKind.ELEMENTWISE, sources, self.shapes[sources[0]])

    def average(self, name: str, source: str) -> str:
        return self._add(name, OperationKind.AVERAGE_POOL, (source,), (self.shapes[source][0], 1, 1))

    def linear(self, name: str, source: str, outputs: int) -> str:
        channels, height, width = self.shapes[source]
        return self._add(
            name, OperationKind.MATRIX, (source,), (outputs, 1, 1), rows=channels * height * width, columns=outputs
        )


def resnet18(size: int = 224, classes: int = 1000) -> list[Operation]:
    """He et al., CVPR 2016; sizes of 64 and less get the 3 x 3 stem of the CIFAR networks."""
    graph = Graph(3, size, size)
    if size > 64:
        x = graph.pool("maxpool", graph.conv("conv1", "input", 64, kernel=7, stride=2), 3, 2, 1)
    else:
        x = graph.conv("conv1", "input", 64)
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}.{block}"
            y = graph.conv(f"{name}.conv2", graph.conv(f"{name}.conv1", x, channels, stride=stride), channels)
            if stride == 2:
                x = graph.conv(f"{name}.downsample", x, channels, kernel=1, stride=2)
            x = graph.add(f"{name}.add", y, x)
    graph.linear("fc", graph.average("avgpool", x), classes)
    return graph.operations


def resnet50(size: int = 224, classes: int = 1000) -> list[Operation]:
    """He et al., CVPR 2016, with the stride on the 3 x 3 convolution."""
    graph = Graph(3, size, size)
    x = graph.pool("maxpool", graph.conv("conv1", "input", 64, kernel=7, stride=2), 3, 2, 1)
    for stage, (channels, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}.{block}"
            y = graph.conv(f"{name}.conv1", x, channels, kernel=1)
            y = graph.conv(f"{name}.conv2", y, channels, stride=stride)
            y = graph.conv(f"{name}.conv3", y, 4 * channels, kernel=1)
            if block == 0:
                x = graph.conv(f"{name}.downsample", x, 4 * channels, kernel=1, stride=stride)
            x = graph.add(f"{name}.add", y, x)
    graph.linear("fc", graph.average("avgpool", x), classes)
    return graph.operations


def vgg16(size: int = 224, classes: int = 1000) -> list[Operation]:
    """Simonyan and Zisserman, ICLR 2015, configuration D; small inputs get one linear layer."""
    graph = Graph(3, size, size)
    x = "input"
    for stage, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for index in range(1, count + 1):
            x = graph.conv(f"conv{stage}_{index}", x, channels)
        x = graph.pool(f"pool{stage}", x, 2, 2)
    if size > 64:
        x = graph.pool("avgpool", x, 1, 1, kind=OperationKind.AVERAGE_POOL)  # torchvision's, to 7 x 7: changes nothing
        x = graph.linear("fc7", graph.linear("fc6", x, 4096), 4096)
    graph.linear("fc8", x, classes)
    return graph.operations
