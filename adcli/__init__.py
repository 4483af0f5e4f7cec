"""Subcommands of the pipeline. Nothing imports this package."""

__version__ = "0.1.0"
