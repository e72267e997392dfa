"""A short way to the answer that MLflow's own server would give, for the requests it is sure of.

    envelope   the body: which of the four JSON forms, its data, its params
    template   bodies that differ in their rows alone: only those are read
    columns    signatures of columns: data to rows, rows to what the model takes
    tensors    signatures of tensors: data to arrays
    estimator  scikit-learn models that may be given a matrix instead of a DataFrame
    path       the way as a whole: read, ask, write
    proof      at load time: what MLflow makes of each form, compared with what is made here

The rule is: sure, or not at all. Whatever is in the least unusual (a missing value, a number that is
no double, an extra column, another content type) is not answered here but by MLflow itself, and so
is every error: a request that fails here is asked once more there, and that answer counts.
"""
