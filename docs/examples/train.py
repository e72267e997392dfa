"""Train a small model on a data set that scikit-learn ships, and save it: `python train.py FOLDER`."""

import sys

import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, kinds = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(features, kinds)
mlflow.sklearn.save_model(
    model,
    sys.argv[1],
    signature=infer_signature(features, model.predict(features)),
    input_example=features[:1],
    pip_requirements=["scikit-learn"],
)
