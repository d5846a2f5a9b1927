"""The version of Slipway that this is; the same text stands in pyproject.toml."""

VERSION = "0.1.0"
