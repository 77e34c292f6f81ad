"""The parameters of each stage: one small module a model, so that a stage depends on its own alone.

A model stands for keys of one block of params.yaml. `pipeline.params_file` reads and checks the whole file.
"""
