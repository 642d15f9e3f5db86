"""When things happen: Prefect flows over the stages of dvc.yaml and the release. No science in here."""
