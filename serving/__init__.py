"""Export trained weights as SavedModel, TFLite and ONNX files, and predict with them."""
