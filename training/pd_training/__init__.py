"""Corpora, optimisers, pretraining, conversion to SkipV1Former and uptraining."""
