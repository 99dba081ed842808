"""One server process from the open port to the orderly end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, MutableMapping
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from fooocusapi.doorway import App, Doorway
from fooocusapi.flags import CommandLine
from fooocusapi.patience import PatientProtocol, allow_many_connections
from fooocusapi.settings import LogLevel, Settings

if TYPE_CHECKING:
    from fooocusapi.engine_maker import EngineMaker
    from fooocusapi.runtime import Runtime
    from fooocusapi.services import Services

logger = logging.getLogger(__name__)

BACKLOG = 2048
LINGERING_S = 3
"""How long open connections may take to end once the jobs are settled."""

TURNS_WHILE_WAITING = 2000
"""How often a thread of a calculation looks for the others before it sleeps."""

Announce = Callable[[Settings], None]


class PortTaken(Exception):
    """The address cannot be listened on."""


def configure_logging(level: LogLevel) -> None:
    """All loggers to standard error, one line a record."""
    logging.addLevelName(5, "TRACE")
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter(
            "%(asctime)s %(levelname)-7s [%(request_id)s] %(name)s: %(message)s", defaults={"request_id": "-"}
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Of a damaged picture the library warns once for each of its thousands of tags, and remembers each.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # What they tell is told by our own records, once and with less noise.
    for noisy in ("httpx", "httpcore", "uvicorn.error", "PIL"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


def let_threads_rest(environment: MutableMapping[str, str]) -> None:
    """Threads of a calculation that wait for each other give the processor away soon, unless the user has said how.

    By default they keep it, where another program is busy also from the thread that they wait for, and a picture takes
    a multiple of its time; alone on the machine it takes as long either way. To be called before torch is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = str(TURNS_WHILE_WAITING)


def name_ignored_flags(line: CommandLine) -> None:
    """One line for the flags that are accepted in vain, one for those that nobody knows."""
    if line.without_effect:
        logger.info("flags without effect here: %s", " ".join(line.without_effect))
    if line.unknown:
        logger.warning("unknown flags ignored: %r", " ".join(line.unknown))


def serve(settings: Settings, announce: Announce, make_engine: EngineMaker | None = None) -> int:
    """Listen until a signal comes; 0 after an orderly end, 1 when the application could not start.

    ``make_engine`` stands in for the real engine. Raises ``PortTaken``.
    """
    let_threads_rest(os.environ)
    allow_many_connections()
    listener = _listen(settings.host, settings.port)
    bound = settings.model_copy(update={"port": listener.getsockname()[1]})
    return _Process(bound, announce, make_engine).run(listener)


class _Process:
    """The parts of one server process, and who tells whom about its end."""

    def __init__(self, settings: Settings, announce: Announce, make_engine: EngineMaker | None) -> None:
        self._settings = settings
        self._announce = announce
        self._make_engine = make_engine
        self._runtime: Runtime | None = None
        self._failed = False
        config = uvicorn.Config(
            Doorway(self._load, self._give_up),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            http=PatientProtocol,
            ws="none",
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=LINGERING_S,
        )
        self._server = _DrainingServer(config, self._drain)

    def run(self, listener: socket.socket) -> int:
        """Serve until the end; the exit code."""
        self._server.run(sockets=[listener])
        if self._runtime is not None and not self._runtime.is_settled:
            # The worker is still inside of a network call, where it cannot be joined; unwinding the interpreter
            # under it would crash. Everything that counts is written down.
            logging.shutdown()
            os._exit(0)
        return 1 if self._failed else 0

    def _load(self) -> App:
        """The application, on a thread; everything heavy is imported here."""
        self._announce(self._settings)
        from fooocusapi.app import create_app
        from fooocusapi.middleware import RequestIdFilter
        from fooocusapi.runtime import Runtime

        for handler in logging.getLogger().handlers:
            handler.addFilter(RequestIdFilter())
        self._runtime = Runtime(self._settings, self._make_engine)
        return create_app(self._settings, self._open)

    def _open(self) -> Services:
        """A server without its journal or its preset would refuse every job: it ends instead, and says why."""
        assert self._runtime is not None
        try:
            return self._runtime.open()
        except Exception as error:
            logger.critical("the server cannot start: %s", error)
            self._give_up()
            raise

    def _drain(self) -> None:
        if self._runtime is not None:
            self._runtime.drain()

    def _give_up(self) -> None:
        self._failed = True
        self._server.should_exit = True


class _DrainingServer(uvicorn.Server):
    """Settles the jobs before it closes the port: clients can see the last of theirs end.

    The framework's own handler would also send the signal to the process again at the end, which then would not end
    with 0.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for an orderly end, the second for a quick one."""
        if self._draining:
            self.force_exit = sig == signal.SIGINT
            self.should_exit = True
            return
        self._draining = True
        threading.Thread(target=self._drain_and_exit, name="shutdown").start()

    def _drain_and_exit(self) -> None:
        logger.info("shutting down")
        try:
            self._drain()
        except Exception:
            logger.exception("the jobs could not be settled")
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket: from here on, clients are queued by the system instead of refused."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":  # Elsewhere the option would let two servers share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise PortTaken(f"cannot listen on {host} port {port}: {error.strerror}") from error
    listener.listen(BACKLOG)
    return listener
