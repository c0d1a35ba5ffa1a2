"""EfficientNet-Lite 0..4: V1 for phones and 8-bit quantisation.

It has no squeeze-and-excite and relu6 instead of swish; stem, head, first and last stage are not scaled.
"""

from dataclasses import replace

from efficientnet.families import v1
from efficientnet.spec import Coefficients, Family, HeadSpec, StemSpec

LITE = Family(
    base="efficientnet-lite0",
    models={
        # width, depth, resolution, dropout
        "efficientnet-lite0": Coefficients(1.0, 1.0, 224, 0.2),
        "efficientnet-lite1": Coefficients(1.0, 1.1, 240, 0.2),
        "efficientnet-lite2": Coefficients(1.1, 1.2, 260, 0.3),
        "efficientnet-lite3": Coefficients(1.2, 1.4, 280, 0.3),
        "efficientnet-lite4": Coefficients(1.4, 1.8, 300, 0.3),
    },
    stages=tuple(replace(stage, se_ratio=0.0) for stage in v1.STAGES),
    stem=StemSpec(32),
    head=HeadSpec(1280),
    activation="relu6",
    mean_rgb=(127.0, 127.0, 127.0),
    stddev_rgb=(128.0, 128.0, 128.0),
    fixed_ends=True,
)
