"""Triptych: an async router for image-generation models. Light: no model library is imported here."""

from __future__ import annotations

import logging

# Writing a backend
from router.backend import Backend
from router.capabilities import Capabilities

# Settings
from router.config import InstanceConfig, ModelConfig, RouterConfig

# Asking
from router.default import generate, generate_sync, records, stream, upscale

# Errors
from router.errors import InvalidRequestError, OverloadedError, RouterError
from router.request import GenerateRequest, LoraRequest
from router.router import BackendRouter
from router.routing import Route

# Answers
from router.types import Completed, GenerateResult, Loading, Picture, Queued, RawImage, Step

# A library says nothing where the application has set up no logging.
logging.getLogger("router").addHandler(logging.NullHandler())

__all__ = [
    "generate",
    "generate_sync",
    "stream",
    "upscale",
    "records",
    "BackendRouter",
    "GenerateRequest",
    "LoraRequest",
    "GenerateResult",
    "Picture",
    "RawImage",
    "Queued",
    "Loading",
    "Step",
    "Completed",
    "Route",
    "InstanceConfig",
    "ModelConfig",
    "RouterConfig",
    "Backend",
    "Capabilities",
    "RouterError",
    "InvalidRequestError",
    "OverloadedError",
]
