"""Tests. A package of its own: libraries that install one of this name must not stand in its place."""
