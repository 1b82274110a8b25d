"""`python -m router` is `triptych`."""

from __future__ import annotations

from router.cli import main

main()
