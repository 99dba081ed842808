"""Why jobs fail by no fault of their own, in words for clients."""

from __future__ import annotations

ENGINE_LOST = "the engine could not be started"
WORKER_LOST = "the worker has ended"
JOURNAL_LOST = "the journal of jobs could not be written"
PICTURE_LOST = "the picture could not be saved"
TOOK_TOO_LONG = "the job took longer than it may"
UNFORESEEN = "an unexpected error stopped the job"
OTHER_RELEASE = "the job was queued by another release of this server and cannot be run"
LOST_AGAIN = "the server stopped while this job was running, and so it did when trying again"
