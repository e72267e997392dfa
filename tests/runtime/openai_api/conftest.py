"""MLflow in this process: what it warns of while it is imported is not an error of ours."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.pyfunc  # noqa: F401
