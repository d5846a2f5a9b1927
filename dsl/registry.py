"""Every app that this program has declared, so that a file's apps can be found after it was imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import App

apps: list[App] = []
