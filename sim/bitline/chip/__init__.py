"""The price: mapping, pipeline, ADC laws, cost, timeline. No torch, no numba."""
