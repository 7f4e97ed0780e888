"""The price: mapping, pipeline, ADC laws, cost, timeline. No torch, no numba."""

from __future__ import annotations

from bitline.chip.cost import LayerActivity, Peak, adc_points, peak
from bitline.chip.estimation import estimate
from bitline.chip.mapping import WeightFacts, weight_facts
from bitline.chip.replication import Replication
from bitline.chip.report import ChipReport, LayerReport

__all__ = [
    "ChipReport",
    "LayerActivity",
    "LayerReport",
    "Peak",
    "Replication",
    "WeightFacts",
    "adc_points",
    "estimate",
    "peak",
    "weight_facts",
]
