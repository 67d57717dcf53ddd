"""Extending the vocabulary of a pretrained model for a domain.

`merges` learns what to add, `tokenizer` adds it, `embeddings` gives the new rows their values, and `extend` is the
tuner `extend-vocabulary`.
"""
