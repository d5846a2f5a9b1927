"""The version of Slipway that this is; nowhere else is it written."""

VERSION = "0.1.0"
