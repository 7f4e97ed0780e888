"""Shared fixtures: where the real data is, and the Hypothesis profiles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and checkpoints, beside the checkout or named by BITLINE_SHARED_DATA."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("BITLINE_SHARED_DATA", default))
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"needs the shared data folder with MANIFEST.md; none at {folder} (set BITLINE_SHARED_DATA)")
    return folder
