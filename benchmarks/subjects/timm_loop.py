"""Train timm's EfficientNets as timm's train.py does, as benchmarks.turn_server measures it."""

from collections.abc import Callable

import numpy as np
import timm
import timm.loss
import timm.optim
import timm.utils
import torch

NUM_CLASSES = 1000
NUM_BATCHES = 4  # that are cycled through
LEARNING_RATE = 1e-5
WEIGHT_DECAY = 1e-5
DROPOUT = {"efficientnet-b0": 0.2, "efficientnet-b2": 0.3}


def training_step(
    model: str, image_size: int, batch: int, steps: int, channels_last: bool = True
) -> Callable[[], int]:
    """Prepare a turn of so many training steps, eager, as float32.

    Images are normalised by the step, as by timm's PrefetchLoader. `channels_last` is the memory format.
    """
    torch.manual_seed(0)
    network = timm.create_model(
        f"tf_{model.replace('-', '_')}",
        num_classes=NUM_CLASSES,
        drop_rate=DROPOUT[model],
        drop_path_rate=0.2,
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=layout).train()
    optimizer = timm.optim.create_optimizer_v2(
        network,
        opt="rmsproptf",
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        momentum=0.9,
        alpha=0.9,
        eps=1e-3,
    )
    average = timm.utils.ModelEmaV2(network, decay=0.9999)
    loss = timm.loss.LabelSmoothingCrossEntropy(0.1)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(
        rng.integers(0, 256, [NUM_BATCHES, batch, 3, image_size, image_size], np.uint8)
    )
    labels = torch.from_numpy(rng.integers(0, NUM_CLASSES, [NUM_BATCHES, batch], np.int64))
    mean, stddev = (
        255 * torch.tensor(network.default_cfg[name]).reshape(3, 1, 1) for name in ("mean", "std")
    )

    def turn() -> int:
        for step in range(steps):
            place = step % NUM_BATCHES
            normal = images[place].float().sub_(mean).div_(stddev).to(memory_format=layout)
            optimizer.zero_grad()
            loss(network(normal), labels[place]).backward()
            optimizer.step()
            average.update(network)
        return steps * batch

    return turn
