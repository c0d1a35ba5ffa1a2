"""Networks for segmentation, on the same backbones."""
