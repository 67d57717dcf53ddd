"""The families of fresh models: each module knows the arithmetic and the configuration of one.

A family is found by its name in `FAMILIES` of `luthier_models.families.table`; `luthier_models.families.design`
says, without loading a library, which of them has what.
"""
