"""The offline tool that turns images into records: `python -m input_pipeline.prepare`."""
