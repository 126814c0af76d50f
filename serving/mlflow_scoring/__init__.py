"""The scoring protocol of `mlflow models serve`, without MLflow."""
