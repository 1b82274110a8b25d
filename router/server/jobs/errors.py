"""The errors of the jobs beside those of the whole service."""

from __future__ import annotations

from router.errors import InvalidRequestError, RouterError


class IdempotencyError(InvalidRequestError):
    """The key came before, with another body."""

    status = 422
    code = "idempotency_key_reused"


class JobStoreError(RouterError):
    """The store cannot write or read now: the disk is full, or fails."""

    status = 503
    code = "job_store_failed"


class ProcessEndedError(RouterError):
    """The service died as often as may be while the job was under way."""

    code = "process_ended"
