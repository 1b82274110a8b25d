"""The HTTP service: one file per wire form, each a translation to `GenerateRequest` and back.

FastAPI and uvicorn are imported in here alone; only `triptych serve` imports this package.
"""
