"""An LSTM that reads an image row by row, then one linear layer over all its outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowLSTM(nn.Module):
    """``lstm`` over the rows of an image, ``fc`` over the outputs of all rows; input pixels 0..1.

    Parameters
    ----------
    row : int
        Pixels of a row (the LSTM's input features).
    hidden : int
        Outputs of the LSTM a row.
    rows : int
        Rows of an image.
    classes : int
        Outputs of the linear layer.
    """

    def __init__(self, row: int, hidden: int, rows: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(row, hidden, batch_first=True)
        self.fc = nn.Linear(rows * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, rows, row) images to (n, classes) logits."""
        # [0] and not a tuple assignment: torch.fx traces an index, and the final state is not needed.
        return self.fc(torch.flatten(self.lstm(torch.flatten(x, 1, 2))[0], 1))
