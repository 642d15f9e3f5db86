"""The version of ayeaye."""

__version__ = "0.1.0"
