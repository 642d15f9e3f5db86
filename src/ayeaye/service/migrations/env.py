"""What alembic runs: migrate on the connection that it is given, in the caller's transaction."""

from alembic import context

from ayeaye.service.migrations import TABLE

context.configure(connection=context.config.attributes["connection"], version_table=TABLE)
context.run_migrations()
