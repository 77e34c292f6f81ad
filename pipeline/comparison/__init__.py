"""The stages of the second pipeline: what MaC is compared with that trains or masks again."""
