"""From torch: checkpoints, architectures, conversion, quantisation, calibration."""
