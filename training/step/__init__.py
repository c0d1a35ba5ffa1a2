"""Everything that runs on the device in a training or evaluation step."""
