"""What every layer of a checkpoint needs, beside TinyADC's formula and its tables' count."""

from bitline.certification import certify_checkpoint

certificate, _ = certify_checkpoint("digits_resnet20_cp16", "tinyadc")
print(f"{'layer':20} {'non-zeros':>9} {'Eq. (1)':>8} {'paper':>6} {'proven':>7}")
for layer in certificate.layers[:8]:
    short = " <- the paper's count can saturate" if layer.counts.paper < layer.bits else ""
    print(
        f"{layer.name:20} {layer.nonzeros_max:9} {layer.counts.equation:8} {layer.counts.paper:6} {layer.bits:7}{short}"
    )
print(f"the whole chip: {certificate.bits} bits, {'lossless' if certificate.lossless else 'NOT lossless'}")
