"""PUMA's description against the roll-up of its authors' own simulator.

``ima_metrics`` and ``tile_metrics`` of github.com/Aayush-Ankit/puma-simulator, commit 626ed38, were run with that
commit's ``config.py``: core 0.03637195329472589 mm2 and 43.60138855978011 mW, tile 0.49746872878072584 mm2 and
375.1938963516178 mW. Its power functions leave out the control units that its constants list (0.25 mW a core, 0.05 mW
a tile), and its tile leaves out the router, a quarter of 0.047 mm2 and 16.54 mW.
"""

from __future__ import annotations

import pytest

from bitline.chip import peak
from bitline.hardware import load_hardware


def test_core_and_tile():
    table = peak(load_hardware("puma")).table
    power, area = table.ima
    assert area == pytest.approx(0.03637195329472589, rel=1e-6)
    assert power - 0.25 == pytest.approx(43.60138855978011, rel=1e-6)
    power, area = table.tile
    assert area - 0.047 / 4 == pytest.approx(0.49746872878072584, rel=1e-6)
    assert power - 8 * 0.25 - 0.05 - 16.54 / 4 == pytest.approx(375.1938963516178, rel=1e-6)
