"""Where training runs: the only place that names a tf.distribute strategy."""
