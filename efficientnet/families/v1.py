"""EfficientNet b0..b8 and l2 (arXiv 1905.11946; b8: 1911.09665, l2: 1911.04252)."""

from efficientnet.spec import Coefficients, Family, HeadSpec, StageSpec, StemSpec

# Repeats, kernel, stride, expand ratio, output filters: table 1 of the paper.
STAGES = (
    StageSpec(1, 3, 1, 1, 16),
    StageSpec(2, 3, 2, 6, 24),
    StageSpec(2, 5, 2, 6, 40),
    StageSpec(3, 3, 2, 6, 80),
    StageSpec(3, 5, 1, 6, 112),
    StageSpec(4, 5, 2, 6, 192),
    StageSpec(1, 3, 1, 6, 320),
)

V1 = Family(
    base="efficientnet-b0",
    models={
        # width, depth, resolution, dropout
        "efficientnet-b0": Coefficients(1.0, 1.0, 224, 0.2),
        "efficientnet-b1": Coefficients(1.0, 1.1, 240, 0.2),
        "efficientnet-b2": Coefficients(1.1, 1.2, 260, 0.3),
        "efficientnet-b3": Coefficients(1.2, 1.4, 300, 0.3),
        "efficientnet-b4": Coefficients(1.4, 1.8, 380, 0.4),
        "efficientnet-b5": Coefficients(1.6, 2.2, 456, 0.4),
        "efficientnet-b6": Coefficients(1.8, 2.6, 528, 0.5),
        "efficientnet-b7": Coefficients(2.0, 3.1, 600, 0.5),
        "efficientnet-b8": Coefficients(2.2, 3.6, 672, 0.5),
        "efficientnet-l2": Coefficients(4.3, 5.3, 800, 0.5),
    },
    stages=STAGES,
    stem=StemSpec(32),
    head=HeadSpec(1280),
    activation="silu",
    mean_rgb=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    stddev_rgb=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)
