"""Networks that give every pixel a class, on the same backbones."""
