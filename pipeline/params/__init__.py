"""The parameters of each stage. Each model has its own module, so a stage depends only on its own models.

A model has keys of one block of params.yaml. `pipeline.params_file` reads and checks the whole file.
"""
