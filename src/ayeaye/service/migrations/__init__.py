"""Migrations of the service's database, by alembic."""

HEAD = "0001"  # the revision that this code needs
TABLE = "ayeaye_schema"  # of the revision; MLflow and Prefect may keep theirs in the same database
