"""The first tables: run-time classes and their changes, feedback, predictions, and comparisons with a challenger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "ayeaye_classes",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("created", TIME, nullable=False),
    )
    op.create_table(
        "ayeaye_changes",
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "ayeaye_feedback",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("time", TIME, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("picture_id", sa.Text),
        sa.Column("model_version", sa.Integer),
        sa.Column("picture_bytes", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reviewer", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("decided", TIME),
        sa.Column("picture", sa.LargeBinary),
        sqlite_autoincrement=True,
    )
    # What the limits count stays quick to count, however much was decided before.
    for name, column, where in (
        ("ayeaye_feedback_pending", "id", "status = 'pending'"),
        ("ayeaye_feedback_pictures", "picture_bytes", "picture IS NOT NULL"),
    ):
        condition = sa.text(where)
        op.create_index(name, "ayeaye_feedback", [column], sqlite_where=condition, postgresql_where=condition)
    op.create_table(
        "ayeaye_predictions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("time", TIME, nullable=False, index=True),
        sa.Column("model_version", sa.Integer),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("seen", sa.Boolean, nullable=False),
        sa.Column("known", sa.Boolean, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("margin", sa.Float, nullable=False),
        sa.Column("picture_id", sa.Text),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "ayeaye_comparisons",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("time", TIME, nullable=False, index=True),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("picture_id", sa.Text),
        sa.Column("bento", sa.Text),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("known", sa.Boolean, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("shadow_bento", sa.Text),
        sa.Column("shadow_status", sa.Integer, nullable=False),
        sa.Column("shadow_label", sa.Text),
        sa.Column("shadow_known", sa.Boolean),
        sa.Column("shadow_confidence", sa.Float),
        sa.Column("shadow_ms", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
