"""What MLflow runs to make the model that it loads."""

import mlflow

from clsgen_dist.serve.pyfunc import BundleModel

mlflow.models.set_model(BundleModel())
