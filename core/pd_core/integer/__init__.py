"""Integer numerics: the same bits on every machine, at the speed of 8-bit products.

`reference` defines the bits; `torch_passes` computes them anywhere torch runs, `native_passes` by
the kernels in `native/`; `integer_lm` is the model that either serves.
"""
