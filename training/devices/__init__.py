"""Devices: the only package that names a tf.distribute strategy."""
