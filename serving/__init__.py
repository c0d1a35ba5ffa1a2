"""From trained weights to answers: SavedModel, TFLite and ONNX files, and predictions with them."""
