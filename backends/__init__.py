"""Backends: leaves of the house, each reached by an import string in `router.registry`."""
