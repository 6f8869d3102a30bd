"""A request as a handler sees it.

Knows nothing of sockets and routes.
"""

from __future__ import annotations

from collections.abc import Mapping

from ovirt_imageio.httpd import framing, head, trace
from ovirt_imageio.httpd.body import Body
from ovirt_imageio.httpd.peer import Peer

__all__ = ["Request"]


class Request:
    """What the client asks for.

    `method` is upper case as it came, `path` percent-decoded, `body` a relay.Source that a handler need not read.

    Threads: the connection's.
    """

    __slots__ = (
        "body",
        "connection",
        "headers",
        "keeps_alive",
        "method",
        "path",
        "query_string",
        "traceparent",
        "upgrades",
        "version",
    )

    def __init__(self, head_: head.Head, body: Body, connection: Peer) -> None:
        self.method, target, self.version, self.headers = head_
        self.path, self.query_string = head.split_target(target)
        self.body = body
        self.connection = connection
        self.keeps_alive = framing.keeps_alive(head_)
        # The protocols to which the client would switch.
        self.upgrades = framing.upgrades(head_) if "upgrade" in self.headers else ()
        # The work of others of which it is a part; None if it does not say so in a way that can be read.
        self.traceparent = trace.parse(self.headers["traceparent"]) if "traceparent" in self.headers else None

    @property
    def caller(self) -> str:
        """The client, and the trace if there is one, as lines of the log name them."""
        client = self.connection.client
        return client if self.traceparent is None else f"{client} trace={trace.trace_of(self.traceparent)}"

    @property
    def query(self) -> Mapping[str, str]:
        """The decoded fields of the query; the last one of a name wins, one without a value has an empty one."""
        return head.split_query(self.query_string)
