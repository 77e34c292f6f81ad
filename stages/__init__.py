"""One thin click command a DVC stage: read params.yaml, call the pipeline, write the stage's outs."""
