"""The main job: a pruned ResNet-20 on real digits, every conversion performed, proven and priced."""

import bitline

report = bitline.simulate("digits_resnet20_cp16", hw="tinyadc", data="digits", images=50, calibration_images=32)
accuracy, performance = report["accuracy"], report["performance"]
print(f"top-1, float:     {accuracy['float_top1']:.1%} of {accuracy['images']} images")
print(f"top-1, simulated: {accuracy['simulated_top1']:.1%}")
print(f"identical to the exact integer network: {accuracy['identical_to_integer']}")
print(f"saturations: {sum(layer['saturations'] for layer in report['layers'])}")
print(f"chip: {performance['images_per_s']:,.0f} images/s")
print(f"      {performance['area_mm2']:.1f} mm2, {performance['power_w']:.1f} W")
