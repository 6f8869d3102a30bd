from __future__ import annotations

import pytest
from fakes import toy
from fakes.raw_client import connect

from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.router import Application, readable

ORIGIN = "Origin: https://engine"


@pytest.fixture(scope="module")
def server():
    with toy.serving() as server:
        yield server


@pytest.fixture
def client(server):
    with connect(server) as client:
        yield client


def test_first_match_wins(client):
    assert client.get("/echo/a").headers["x-groups"] == "a"
    assert client.get("/echo/a/b").headers["x-groups"] == "a,b"
    assert client.get("/echo/a%2fb").headers["x-groups"] == "a,b"
    assert client.get("/echo/").headers["x-groups"] == ""


def test_whole_path_must_match(client):
    for path in "/stream/", "/streams", "/a/stream", "/echo", "/", "/a//stream", "*", "/stream%0A":
        answer = client.get(path)
        assert (answer.status, answer.text, answer.closes) == (404, "No such resource\n", False)


def test_query(client):
    assert client.get("/echo/a?b=c&b=d&e").json["query"] == {"b": "d", "e": ""}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "BREW", "get", "PRI", "CONNECT"])
def test_no_such_method(client, method):
    answer = client.get("/stream", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "OPTIONS,HEAD,GET"
    assert client.get("/nothing", method=method).status == 404


def test_options_of_a_resource_without(client):
    answer = client.get("/echo/a", method="OPTIONS")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["allow"] == "OPTIONS,HEAD,GET,PUT,PATCH,POST,DELETE"


def test_head(client):
    answer = client.get("/stream?size=1000000", method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, "1000000")
    answer = client.get("/nothing", method="HEAD")
    assert answer.status == 404
    # Nothing of a body was left on the connection.
    assert client.get("/echo/a").status == 200


def test_own_head():
    class Both:
        def get(self, request, response):
            raise AssertionError("not for HEAD")

        def head(self, request, response):
            response.start(200, 7)

    with toy.serving(toy.application(("/both", Both()))) as server, connect(server) as client:
        assert client.get("/both", method="HEAD").headers["content-length"] == "7"
        assert client.get("/echo/a").status == 200


def test_empty_answer():
    class Quiet:
        def put(self, request, response):
            pass

    with toy.serving(toy.application(("/quiet", Quiet()))) as server, connect(server) as client:
        answer = client.put("/quiet", b"")
        assert (answer.status, answer.headers["content-length"]) == (200, "0")
        # There is no HEAD without GET.
        assert client.get("/quiet", method="HEAD").headers["allow"] == "OPTIONS,PUT"


def test_no_content_has_a_length(client):
    answer = client.get("/echo/a", method="DELETE")
    assert (answer.status, answer.headers["content-length"]) == (204, "0")


def test_foreseen_error(client):
    answer = client.get("/broken/foreseen")
    assert (answer.status, answer.text) == (404, "No such thing\n")
    assert answer.headers["x-reason"] == "foreseen"
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
    # It describes what was not sent.
    assert "content-disposition" not in answer.headers
    assert not answer.closes


@pytest.mark.parametrize("kind", ["other", "header"])
def test_unforeseen_error(client, caplog, kind):
    answer = client.get(f"/broken/{kind}")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "set-cookie" not in answer.headers
    assert not answer.closes
    assert ("RuntimeError: secret" if kind == "other" else "line break") in caplog.text


@pytest.mark.parametrize(
    "path, status", [("/echo/a", 200), ("/broken/foreseen", 404), ("/broken/x", 500), ("/no", 404)]
)
def test_cors(client, path, status):
    answer = client.get(path, ORIGIN)
    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Content-Range" in answer.headers["access-control-expose-headers"]
    assert not any(name.startswith("access-control") for name in client.get(path).headers)


def test_cors_on_405(client):
    assert client.put("/stream", b"", ORIGIN).headers["access-control-allow-origin"] == "*"


def test_preflight(client):
    fields = [ORIGIN, "Access-Control-Request-Method: PATCH", "Access-Control-Request-Headers: content-range"]
    answer = client.get("/echo/a", *fields, method="OPTIONS")
    assert answer.status == 200
    assert answer.headers["access-control-allow-methods"] == "OPTIONS,HEAD,GET,PUT,PATCH,POST,DELETE"
    assert answer.headers["access-control-allow-headers"] == "*"
    assert answer.headers["access-control-max-age"] == "86400"


def test_policy_of_a_resource():
    class Private:
        cors = cors.Policy(origins=("https://engine",))

        def get(self, request, response):
            response.send_text("ok")

    with toy.serving(toy.application(("/private", Private()))) as server, connect(server) as client:
        assert client.get("/private", ORIGIN).headers["access-control-allow-origin"] == "https://engine"
        assert "access-control-allow-origin" not in client.get("/private", "Origin: https://evil").headers


def test_no_cors():
    with toy.serving(Application([("/echo", toy.Echo())])) as server, connect(server) as client:
        assert not any(name.startswith("access-control") for name in client.get("/echo", ORIGIN).headers)
        answer = client.get("/echo", method="OPTIONS")
        assert (answer.status, answer.headers["allow"]) == (405, "HEAD,GET,PUT,PATCH,POST,DELETE")
        assert not any(name.startswith("access-control") for name in client.get("/no", ORIGIN).headers)


@pytest.mark.parametrize(
    "pattern, name",
    [
        ("/images/(.*)/extents", "/images/{id}/extents"),
        ("/images/([^/]+)", "/images/{id}"),
        ("/info/?", "/info"),
    ],
)
def test_name_of_a_route(pattern, name):
    assert readable(pattern) == name


def test_observer():
    recorder = toy.Recorder()
    with toy.serving(toy.application(observer=recorder)) as server, connect(server) as client:
        client.get("/echo/secret")
        client.get("/nothing/secret")
        client.get("/broken/x", method="HEAD")
        client.put("/stream", b"")
        client.send(b"GET /stream?size=100&stop=50 HTTP/1.1\r\n\r\n")
        client.read_to_end()
        recorder.wait(lambda: len(recorder.requests) == 5)
    assert recorder.requests == [
        ("/echo/{id}", "GET", 200),
        ("", "GET", 404),
        ("/broken/{id}", "HEAD", 500),
        ("/stream", "PUT", 405),
        ("/stream", "GET", 200),
    ]


def test_connection_lost_by_the_kernel(caplog):
    class Spliced:
        def get(self, request, response):
            raise BrokenPipeError(32, "Broken pipe")

    with toy.serving(toy.application(("/spliced", Spliced()))) as server, connect(server) as client:
        client.send(b"GET /spliced HTTP/1.1\r\n\r\n")
        assert client.is_closed()
    assert "Traceback" not in caplog.text


def test_upload_that_stood_still_in_the_kernel():
    class Spliced:
        def put(self, request, response):
            raise TimeoutError

    with toy.serving(toy.application(("/spliced", Spliced()))) as server, connect(server) as client:
        answer = client.put("/spliced", b"")
        assert answer.status == 408
        assert client.is_closed()


def test_download_that_stood_still_in_the_kernel(caplog):
    class Spliced:
        def get(self, request, response):
            response.start(length=100).write(memoryview(b"some"))
            raise TimeoutError

    with toy.serving(toy.application(("/spliced", Spliced()))) as server, connect(server) as client:
        client.send(b"GET /spliced HTTP/1.1\r\n\r\n")
        client.read_to_end()
    assert "Traceback" not in caplog.text
