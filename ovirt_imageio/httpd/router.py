"""Which resource answers a request, and what becomes of the errors on the way.

Knows nothing of what the resources do.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.httpd import cors as cors_
from ovirt_imageio.httpd.observer import Observer
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response

__all__ = ["Application", "Route", "Translate"]

log = logging.getLogger("http")

# The methods that a resource may have, in the order of an Allow header.
VERBS = ("OPTIONS", "HEAD", "GET", "PUT", "PATCH", "POST", "DELETE")

# Turns an error of a handler into an answer; None if it does not know the error.
Translate = Callable[[Exception], Optional[Refusal]]

Verb = Callable[..., None]

# It says nothing of what happened: the log does.
INTERNAL_ERROR = "Internal server error: the log of the server tells more"


class Route:
    """A pattern, the verbs of its resource, and the policy for pages of other origins."""

    __slots__ = ("allow", "cors", "match", "name", "verbs")

    def __init__(self, pattern: str, resource: object, cors: Optional[cors_.Policy]) -> None:
        # Safe to log and to count by, unlike the path: that may hold a secret.
        self.name = readable(pattern)
        # An id may be any text: also a line break is for the resource to refuse.
        self.match = re.compile(pattern, re.DOTALL).fullmatch
        self.cors: Optional[cors_.Policy] = getattr(resource, "cors", cors)
        # In the order of VERBS.
        self.verbs: dict[str, Verb] = {}
        for name in VERBS:
            verb = getattr(resource, name.lower(), None)
            if verb is not None:
                self.verbs[name] = verb
        if "GET" in self.verbs:
            # The response drops the body.
            self.verbs.setdefault("HEAD", self.verbs["GET"])
        if self.cors is not None:
            # A browser asks before it does anything unusual.
            self.verbs.setdefault("OPTIONS", self._options)
        self.verbs = {name: self.verbs[name] for name in VERBS if name in self.verbs}
        self.allow = ",".join(self.verbs)

    def _options(self, request: Request, response: Response, *groups: str) -> None:
        """Answer for a resource that has nothing to tell."""
        response.headers["allow"] = self.allow
        response.send()


def readable(pattern: str) -> str:
    """Return a pattern as people write it.

    >>> readable("/images/(.*)/extents"), readable("/info/?")
    ('/images/{id}/extents', '/info')
    """
    return re.sub(r"\([^()]*\)", "{id}", pattern).removesuffix("/?")


class Application:
    """Answers requests with the resource whose pattern matches the whole percent-decoded path, the first one wins.

    routes: (regular expression, resource) pairs. A resource is any object; the method of it that is named as the verb
    in lower case is called with the request, the response and the groups of the match. A resource with `get` and no
    `head` answers HEAD by `get`, which may look at `response.has_body`. An attribute `cors` overrides the policy.

    translate: turns what a handler raises into a Refusal; for None the client gets a 500, and the log the traceback.

    cors: the policy for pages of other origins; None: no headers, and no answer to OPTIONS but of resources that have
    it.

    admit: is called with each request before anything else, and raises a Refusal for those that have no business here.

    observer: is told of every request.

    >>> Application([(r"/info/", Info()), (r"/images/([^/]+)", Images())], translate=to_refusal)

    Threads: any.
    """

    def __init__(
        self,
        routes: Sequence[tuple[str, object]],
        *,
        translate: Translate = lambda error: None,
        cors: Optional[cors_.Policy] = None,
        admit: Optional[Callable[[Request], None]] = None,
        observer: Optional[Observer] = None,
    ) -> None:
        self._admit = admit
        self.routes = [Route(pattern, resource, cors) for pattern, resource in routes]
        self._translate = translate
        self._cors = cors
        self._observer = observer or Observer()

    def __call__(self, request: Request, response: Response) -> None:
        """Answer the request. Raises ClientGone or errors.OperationCanceled if there is no client to answer."""
        started = time.monotonic()
        route, groups = self._find(request.path)
        try:
            with request.connection.clock.run("dispatch"):
                self._answer(route, groups, request, response)
        finally:
            name = route.name if route else ""
            self._observer.request_finished(name, request.method, response.status, time.monotonic() - started)

    def _find(self, path: str) -> tuple[Optional[Route], Sequence[str]]:
        for route in self.routes:
            match = route.match(path)
            if match is not None:
                return route, match.groups("")
        return None, ()

    def _answer(self, route: Optional[Route], groups: Sequence[str], request: Request, response: Response) -> None:
        try:
            if self._admit is not None:
                self._admit(request)
            if route is None:
                raise self._no_route(request, response)
            if route.cors is not None:
                response.headers.update(route.cors.headers(request.headers, list(route.verbs)))
            verb = route.verbs.get(request.method)
            if verb is None:
                text = f"This resource has no such method, only {route.allow}"
                raise Refusal(405, text, {"allow": route.allow})
            verb(request, response, *groups)
            response.finish()
        except ClientGone:
            raise
        except ConnectionError as error:
            # The kernel moved bytes for a handler: the storage has other errors.
            raise ClientGone(error.strerror or str(error)) from error
        except TimeoutError as error:
            if response.is_started:
                raise ClientGone("it took nothing in time") from error
            self._refuse(Refusal(408, "No data of the request body came in time", close=True), route, request, response)
        except Exception as error:
            self._refuse(error, route, request, response)

    def _no_route(self, request: Request, response: Response) -> Refusal:
        if self._cors is not None:
            response.headers.update(self._cors.headers(request.headers, VERBS))
        return Refusal(404, "No such resource")

    def _refuse(self, error: Exception, route: Optional[Route], request: Request, response: Response) -> None:
        """Answer with the error, or close if it is too late for that."""
        connection = request.connection
        name = route.name if route else "-"
        where = f"[{request.caller}] {request.method} {name} connection={connection.id}"
        refusal = error if isinstance(error, Refusal) else self._translate(error)
        if refusal is None:
            log.error("%s failed", where, exc_info=error)
            refusal = Refusal(500, INTERNAL_ERROR)
        else:
            log.log(logging.ERROR if refusal.status >= 500 else logging.WARNING, "%s: %s", where, refusal)
        if response.is_started:
            # The client got a good status; all we can do is to close before all that was promised was sent.
            log.warning("%s was cut short: the response had started", where)
            response.close = True
            return
        if connection.is_aborted:
            raise errors.OperationCanceled()
        policy = route.cors if route else self._cors
        # The headers of what did not happen go, those that let a page read the error stay.
        response.headers = policy.headers(request.headers, list(route.verbs) if route else VERBS) if policy else {}
        response.headers.update(refusal.headers)
        response.close = response.close or refusal.close
        response.send_refusal(refusal)
