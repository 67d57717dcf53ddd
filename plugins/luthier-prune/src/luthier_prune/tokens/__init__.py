"""Pruning a vocabulary.

`ranking` says which tokens go first; `tokenizer` writes what stays, and `numbers` the rows and ids of it; `prune` is
the pruner `vocabulary`.
"""
