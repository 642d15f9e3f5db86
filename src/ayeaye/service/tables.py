"""The tables of the service's database, as the code reads and writes them; `migrations` makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

from ayeaye.service.migrations import TABLE

PENDING: Final = "pending"  # feedback nobody has decided


class Utc(TypeDecorator[datetime]):
    """Aware UTC; SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


_metadata = MetaData()
SCHEMA = Table(TABLE, _metadata, Column("version_num", Text, primary_key=True))  # alembic's
CLASSES = Table(
    "ayeaye_classes",
    _metadata,
    Column("key", Text, primary_key=True),
    Column("name", Text),
    Column("content", JSON),
    Column("caller", Text),
    Column("created", Utc),
)
CHANGES = Table(
    "ayeaye_changes",
    _metadata,
    Column("revision", Integer, primary_key=True),
    Column("time", Utc),
    Column("caller", Text),
    Column("action", Text),
    Column("name", Text),
    Column("content", JSON),
)
FEEDBACK = Table(
    "ayeaye_feedback",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Utc),
    Column("answer", Text),
    Column("label", Text),
    Column("caller", Text),
    Column("picture_id", Text),
    Column("model_version", Integer),
    Column("picture_bytes", Integer),
    Column("status", Text),
    Column("reviewer", Text),
    Column("reason", Text),
    Column("decided", Utc),
    Column("picture", LargeBinary),
)
PREDICTIONS = Table(
    "ayeaye_predictions",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Utc),
    Column("model_version", Integer),
    Column("answer", Text),
    Column("label", Text),
    Column("seen", Boolean),
    Column("known", Boolean),
    Column("confidence", Float),
    Column("margin", Float),
    Column("picture_id", Text),
    Column("vector", LargeBinary),  # float16, little-endian
)
COMPARISONS = Table(
    "ayeaye_comparisons",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Utc),
    Column("answer", Text),
    Column("picture_id", Text),
    Column("bento", Text),
    Column("label", Text),
    Column("known", Boolean),
    Column("confidence", Float),
    Column("shadow_bento", Text),
    Column("shadow_status", Integer),
    Column("shadow_label", Text),
    Column("shadow_known", Boolean),
    Column("shadow_confidence", Float),
    Column("shadow_ms", Float),
)
