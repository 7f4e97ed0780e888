"""Bad input of ``compare`` is refused in one line before anything is loaded."""

from __future__ import annotations

import math

import pytest

from bitline.comparison import compare
from bitline.errors import BitlineError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": []}, "methods: at least one"),
        ({"budget": math.nan}, "budget: must be at least 0"),
        ({"budget": -1.0}, "budget: must be at least 0"),
        ({"hw": "isaac_8bit", "methods": ["plain"]}, "differential encoding with digital readout"),
    ],
)
def test_refused_before_a_checkpoint_is_read(given, said):
    with pytest.raises(BitlineError, match=said) as caught:
        compare(["no such file"], **given)
    assert "\n" not in str(caught.value)
