"""Every way in which a token can be wrong, and the few in which it is right."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("cryptography")

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding
from hypothesis import given
from hypothesis import strategies as st
from real import tokens
from real.tokens import SIGNED, encode, make_fields, make_payload, sign_v1, sign_v2

from ovirt_imageio import errors
from ovirt_imageio.sessions import token

# Certificates are valid today: so must be the tests' now.
NOW = int(time.time())
YEAR = 365 * tokens.DAY

AUTHORITY = tokens.issue("CA1", tokens.rsa_key("ca1"), is_authority=True)
FOREIGN = tokens.make_authority("CA2")
ENGINE = tokens.issue("engine", tokens.rsa_key("engine"), AUTHORITY)
OTHER = tokens.issue("engine", tokens.rsa_key("other"), AUTHORITY)
STRANGER = tokens.issue("engine", tokens.rsa_key("other"), FOREIGN)
SELF_SIGNED = tokens.issue("engine", tokens.rsa_key("other"))


def make_verifier(signer=ENGINE, ca=AUTHORITY, **options):
    return token.Verifier(signer.pem, ca and ca.pem, **options)


def good_fields():
    return make_fields(NOW, make_payload(NOW))


def without(fields, name):
    return {key: value for key, value in fields.items() if key != name}


def with_payload(**changes):
    return encode(sign_v2(make_fields(NOW, make_payload(NOW, **changes)), ENGINE))


def with_window(start, end):
    fields = {**good_fields(), "validFrom": start, "validTo": end}
    return encode(sign_v2(fields, ENGINE))


def pss(salt_length, mgf=None):
    return padding.PSS(padding.MGF1(mgf or hashes.SHA256()), salt_length)


def flipped(name):
    """Change one character of a field after signing."""
    fields = sign_v2(good_fields(), ENGINE)
    value = fields[name]
    middle = len(value) // 2
    fields[name] = value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :]
    return encode(fields)


# What is good.


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(sign_v2(good_fields(), ENGINE), id="v2"),
        pytest.param(sign_v1(good_fields(), ENGINE), id="v1 sha256"),
        pytest.param(sign_v1(good_fields(), ENGINE, "sha512"), id="v1 sha512"),
        pytest.param({**sign_v2(good_fields(), ENGINE), "signature": "aWdub3JlZA=="}, id="v2 with v1 beside it"),
        pytest.param(
            sign_v2(good_fields(), ENGINE, ("data", "validTo", "validFrom", "salt")), id="another order of fields"
        ),
        pytest.param(sign_v2(good_fields(), ENGINE, (" salt", "validFrom ", "validTo", " data ")), id="blanks"),
        pytest.param(without(sign_v2(good_fields(), ENGINE), "certificate"), id="no certificate"),
        pytest.param({**sign_v2(good_fields(), ENGINE), "certificate": OTHER.pem.decode()}, id="certificate ignored"),
    ],
)
def test_good(fields):
    access = make_verifier().verify(encode(fields), NOW)
    assert access == token.Access(
        base_url="https://host.example:54322",
        ticket_id=tokens.TICKET_ID,
        expires=NOW + 300,
        shown_until=NOW + 300,
        transfer_id="a1f4ad5e-49f1-4d0c-9d9c-5e5ef6d2bd1e",
    )
    assert access.url == f"https://host.example:54322/images/{tokens.TICKET_ID}"


def test_transfer_id_is_optional():
    assert make_verifier().verify(with_payload(**{"transfer-id": None}), NOW).transfer_id is None


def test_trailing_newline():
    make_verifier().verify(with_payload() + "\n", NOW)


def test_without_authority():
    make_verifier(SELF_SIGNED, None).verify(encode(sign_v2(good_fields(), SELF_SIGNED)), NOW)


def test_sha1_only_on_request():
    # OpenSSL may forbid SHA-1 by policy; then a signature cannot even be made.
    try:
        text = encode(sign_v1(good_fields(), ENGINE, "sha1"))
    except Exception as e:
        pytest.skip(f"cannot sign with SHA-1: {e}")
    make_verifier(allow_sha1=True).verify(text, NOW)
    with pytest.raises(errors.NotAuthenticated, match="allow_sha1"):
        make_verifier().verify(text, NOW)


class Forbidding:
    """A certificate, and its key, on a system whose policy forbids to verify what it signed."""

    key_size = 2048

    def public_key(self):
        return self

    def verify(self, *_):
        raise UnsupportedAlgorithm("not on this system")


@pytest.mark.parametrize("sign", [sign_v1, sign_v2])
def test_what_the_system_forbids_to_verify_is_refused(sign):
    """Enterprise Linux 9 does that with SHA-1."""
    verifier = make_verifier(ca=None)
    verifier._signer = Forbidding()
    with pytest.raises(errors.NotAuthenticated, match="this system does not support sha256 signatures"):
        verifier.verify(encode(sign(good_fields(), ENGINE)), NOW)


def test_certificate_as_java_writes_it():
    lines = base64.b64encode(base64.b64decode("".join(ENGINE.pem.decode().splitlines()[1:-1]))).decode()
    body = "\r\n".join(lines[i : i + 76] for i in range(0, len(lines), 76))
    pem = f"Bag Attributes\n-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()
    token.Verifier(pem, AUTHORITY.pem).verify(with_payload(), NOW)


@pytest.mark.parametrize(
    "url",
    ["https://h", "https://h/", "https://10.0.0.1:54322", "https://[::1]:54322", "https://::1:54322", "HTTPS://h"],
)
def test_good_base_url(url):
    access = make_verifier().verify(with_payload(**{"imaged-uri": url}), NOW)
    assert access.url.startswith("https://")
    assert access.url.count("/") == 4


# The skew widens every window, and 0 is exact.


@pytest.mark.parametrize("skew", [0, 10])
def test_window_of_envelope(skew):
    text = encode(sign_v2(make_fields(NOW, make_payload(NOW - 1000, exp=NOW + 1000)), ENGINE))
    verifier = make_verifier(skew=skew)
    for now in (NOW - skew, NOW, NOW + 300 + skew):
        assert verifier.verify(text, now).shown_until == NOW + 300 + skew
    for now in (NOW - skew - 1, NOW + 301 + skew):
        with pytest.raises(errors.NotAuthenticated):
            verifier.verify(text, now)


@pytest.mark.parametrize("skew", [0, 10])
def test_window_of_access(skew):
    fields = {**good_fields(), "validFrom": tokens.date(NOW - 1000), "validTo": tokens.date(NOW + 1000)}
    text = encode(sign_v2(fields, ENGINE))
    verifier = make_verifier(skew=skew)
    for now in (NOW - skew, NOW, NOW + 299 + skew):
        assert verifier.verify(text, now).expires == NOW + 300 + skew
    for now in (NOW - skew - 1, NOW + 300 + skew):
        with pytest.raises(errors.NotAuthenticated):
            verifier.verify(text, now)


def test_shortest_window():
    make_verifier().verify(with_window(tokens.date(NOW), tokens.date(NOW)), NOW)


def test_earliest_and_latest_times():
    access = make_verifier().verify(with_payload(nbf=0, iat=0, exp=253402300799), NOW)
    assert access.expires == 253402300799


# What is bad: the whole list, one reason each.

MISMATCH = "the signature of the token does not match"

# They stay bad however long the tests take that use them.
BAD = {
    "empty": ("", "token is empty"),
    "blank": (" \n", "token is empty"),
    "not base64": ("this is no token!", "token is not base64"),
    "not ascii": ("tökén", "token is not base64"),
    "truncated base64": (with_payload()[:-10] + "x", "token is not base64"),
    "cut in the middle": (with_payload()[:1000], "token is not a JSON object"),
    "line break inside": (with_payload()[:76] + "\n" + with_payload()[76:], "token is not base64"),
    "binary": (base64.b64encode(b"\xff\xfe\x00").decode(), "the token is not UTF-8"),
    "not json": (base64.b64encode(b"hello").decode(), "token is not a JSON object"),
    "json array": (encode([1, 2]), "token is not a JSON object"),
    "json null": (encode(None), "token is not a JSON object"),
    "json string": (encode("x"), "token is not a JSON object"),
    "json nested deeply": (base64.b64encode(b"[" * 20000).decode(), "token is not a JSON object"),
    "repeated key": (base64.b64encode(b'{"salt": "a", "salt": "b"}').decode(), "token is not a JSON object"),
    "bearer": ("Bearer " + with_payload(), "token is not base64"),
    "too long": ("A" * 1024 * 1024, "the token is longer than 32768 characters"),
    "field is a number": (
        encode({**sign_v2(good_fields(), ENGINE), "salt": 1}),
        "the value of a field is not a string: 'salt'",
    ),
    "extra field is a number": (
        encode({**sign_v2(good_fields(), ENGINE), "extra": 1}),
        "the value of a field is not a string: 'extra'",
    ),
    "field is null": (
        encode({**sign_v2(good_fields(), ENGINE), "data": None}),
        "the value of a field is not a string: 'data'",
    ),
    "signature is an object": (
        encode({**sign_v2(good_fields(), ENGINE), "v2_signature": {}}),
        "the value of a field is not a string: 'v2_signature'",
    ),
    "names absent field": (
        encode(sign_v2(good_fields(), ENGINE, (*SIGNED, "absent"))),
        "signedFields names a field that is not there",
    ),
    "names empty field": (
        encode(sign_v2(good_fields(), ENGINE, (*SIGNED, ""))),
        "signedFields names a field that is not there",
    ),
    "repeats a field": (encode(sign_v2(good_fields(), ENGINE, (*SIGNED, "salt"))), "signedFields repeats a field"),
    "repeats a field behind a blank": (
        encode(sign_v2(good_fields(), ENGINE, (*SIGNED, " salt"))),
        "signedFields repeats a field",
    ),
    "digest not signed": (encode(sign_v1(good_fields(), ENGINE, names=SIGNED)), "digest not signed"),
    "signed by another": (encode(sign_v2(good_fields(), OTHER)), MISMATCH),
    "signed by a stranger": (encode(sign_v2(good_fields(), STRANGER)), MISMATCH),
    "self signed": (encode(sign_v2(good_fields(), SELF_SIGNED)), MISMATCH),
    "v1 signed by another": (encode(sign_v1(good_fields(), OTHER)), MISMATCH),
    "digest is not the one used": (
        encode(sign_v1(good_fields(), ENGINE, "sha512", used="sha256")),
        MISMATCH,
    ),
    "unknown digest": (
        encode(sign_v1(good_fields(), ENGINE, "foo", used="sha256")),
        "the token uses an unsafe or unknown digest",
    ),
    "digest md5": (
        encode(sign_v1(good_fields(), ENGINE, "md5", used="sha256")),
        "the token uses an unsafe or unknown digest",
    ),
    "digest is no digest": (
        encode(sign_v1(good_fields(), ENGINE, "hash", used="sha256")),
        "the token uses an unsafe or unknown digest",
    ),
    "salt of no length": (
        encode(sign_v2(good_fields(), ENGINE, scheme=pss(0))),
        MISMATCH,
    ),
    "salt of 32 bytes": (
        encode(sign_v2(good_fields(), ENGINE, scheme=pss(32))),
        MISMATCH,
    ),
    "mgf with sha1": (
        encode(sign_v2(good_fields(), ENGINE, scheme=pss(222, hashes.SHA1()))),
        MISMATCH,
    ),
    "pkcs1 in v2": (
        encode(sign_v2(good_fields(), ENGINE, scheme=padding.PKCS1v15())),
        MISMATCH,
    ),
    "bad v2 with good v1": (
        encode({**sign_v1(good_fields(), ENGINE), "v2_signature": "AAAA"}),
        MISMATCH,
    ),
    "signature is not base64": (
        encode({**sign_v2(good_fields(), ENGINE), "v2_signature": "%%%"}),
        "v2_signature is not base64",
    ),
    "window past": (with_window(tokens.date(NOW - 20), tokens.date(NOW - 10)), "the token is expired"),
    "window future": (with_window(tokens.date(NOW + YEAR), tokens.date(NOW + YEAR + 20)), "the token is not yet valid"),
    "window inverted": (with_window(tokens.date(NOW + 10), tokens.date(NOW - 10)), "the token ends before it begins"),
    "date with zone": (with_window(tokens.date(NOW) + "Z", tokens.date(NOW + 10)), "validFrom is not a date"),
    "date of 13 digits": (with_window(tokens.date(NOW)[:-1], tokens.date(NOW + 10)), "validFrom is not a date"),
    "date of month 13": (with_window("20201301000000", tokens.date(NOW + 10)), "validFrom is not a date"),
    "date of day 0": (with_window("20201200000000", tokens.date(NOW + 10)), "validFrom is not a date"),
    "date in other digits": (with_window("٢" * 14, tokens.date(NOW + 10)), "validFrom is not a date"),
    "payload not json": (encode(sign_v2(make_fields(NOW, "hello"), ENGINE)), "data is not a JSON object"),
    "payload is an array": (encode(sign_v2(make_fields(NOW, "[]"), ENGINE)), "data is not a JSON object"),
    "payload repeats a key": (
        encode(sign_v2(make_fields(NOW, '{"exp": 1, "exp": 2}'), ENGINE)),
        "data is not a JSON object",
    ),
    "exp past": (with_payload(exp=NOW - 1), "the access is expired"),
    "exp now": (with_payload(exp=NOW), "the access is expired"),
    "nbf future": (with_payload(nbf=NOW + YEAR), "the access is not yet valid"),
    "ticket with other type": (with_payload(**{"transfer-ticket": 17}), "transfer-ticket is not a text"),
    "transfer id with line break": (with_payload(**{"transfer-id": "a\nb"}), "the transfer-id is not an identifier"),
    "transfer id with other type": (with_payload(**{"transfer-id": 1}), "transfer-id is not a text"),
}
BAD.update(
    {
        f"no {name}": (encode(without(sign_v2(good_fields(), ENGINE), name)), f"the token has no {name}")
        for name in (*SIGNED, "signedFields")
    }
)
BAD["no signature"] = (encode(without(sign_v2(good_fields(), ENGINE), "v2_signature")), "the token has no signature")
BAD["no v1 signature"] = (encode(without(sign_v1(good_fields(), ENGINE), "signature")), "the token has no signature")
BAD["no v1 digest"] = (encode(without(sign_v1(good_fields(), ENGINE), "digest")), "the token has no digest")
BAD.update(
    {
        f"{name} not signed": (
            encode(sign_v2(good_fields(), ENGINE, [item for item in SIGNED if item != name])),
            f"{name} not signed",
        )
        for name in SIGNED
    }
)
BAD.update({f"{name} changed after signing": (flipped(name), MISMATCH) for name in (*SIGNED, "v2_signature")})
BAD["signedFields changed after signing"] = (flipped("signedFields"), "signedFields names a field that is not there")
BAD.update(
    {
        f"payload without {name}": (with_payload(**{name: None}), f"{name} is not a {kind}")
        for kind, names in {
            "time in seconds since the epoch": ("nbf", "iat", "exp"),
            "text": ("imaged-uri", "transfer-ticket"),
        }.items()
        for name in names
    }
)
BAD.update(
    {
        f"{name} is {value!r}": (with_payload(**{name: value}), f"{name} is not a time in seconds since the epoch")
        for name in ("exp", "nbf", "iat")
        # One second later is the year 10000.
        for value in ("1700000000", 1.7e9, -1, 253402300800, 10**30, True, [])
    }
)
BAD.update(
    {
        f"host {url!r}": (with_payload(**{"imaged-uri": url}), "imaged-uri is not https://HOST[:PORT]")
        for url in (
            "",
            "host:54322",
            "//host:54322",
            "http://host:54322",
            "file:///etc/passwd",
            "nbd:unix:/run/x.sock",
            "https://",
            "https:///images",
            "https://host/path",
            "https://host//",
            "https://user@host",
            "https://user:password@host",
            "https://host?query",
            "https://host#fragment",
            "https://host:0x50",
            "https://host:99999",
            "https://ho st",
            "https://host\r\nX: y",
            "https://host\n",
            "https://host@evil",
            "https://höst",
            "https://-host",
        )
    }
)
BAD["host 17"] = (with_payload(**{"imaged-uri": 17}), "imaged-uri is not a text")
BAD.update(
    {
        f"ticket {value!r}": (with_payload(**{"transfer-ticket": value}), "the transfer-ticket is not a UUID")
        for value in (
            "",
            "ticket",
            "..",
            "../tickets/x",
            "%2f",
            tokens.TICKET_ID + "/extents",
            tokens.TICKET_ID + "?x",
            tokens.TICKET_ID + "\n",
            "%2e%2e" + tokens.TICKET_ID[6:],
        )
    }
)


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad(name):
    text, reason = BAD[name]
    with pytest.raises(errors.NotAuthenticated) as e:
        make_verifier().verify(text, NOW)
    assert str(e.value) == f"Not authenticated: {reason}"
    # The token is a secret, and so is what it holds.
    assert tokens.TICKET_ID not in str(e.value)
    assert len(str(e.value)) < 150


def test_longest_token():
    """32 KiB: four times as long as any real one."""
    for size, reason in ((32768, "token is not a JSON object"), (32769, "the token is longer than 32768 characters")):
        with pytest.raises(errors.NotAuthenticated, match=reason):
            make_verifier().verify("A" * size, NOW)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    for text in (data.decode("latin-1"), base64.b64encode(data).decode()):
        with pytest.raises(errors.NotAuthenticated):
            make_verifier().verify(text, NOW)


GOOD = sign_v2(good_fields(), ENGINE)
VALUES = st.one_of(st.text(max_size=5), st.integers(), st.none(), st.sampled_from(list(GOOD)))


@given(st.dictionaries(st.sampled_from([*GOOD, "signature", "digest"]), VALUES, min_size=1, max_size=4))
def test_any_change_is_refused(changes):
    # What is not signed and not looked at may be anything, as long as it is text.
    unused = {"certificate", "signature", "digest"}
    if set(changes) <= unused and all(isinstance(value, str) for value in changes.values()):
        make_verifier().verify(encode({**GOOD, **changes}), NOW)
        return
    with pytest.raises(errors.NotAuthenticated):
        make_verifier().verify(encode({**GOOD, **changes}), NOW)


@pytest.mark.parametrize("now", [NOW - YEAR, NOW + YEAR])
def test_signer_out_of_its_time(now):
    text = encode(sign_v2(make_fields(now, make_payload(now)), ENGINE))
    with pytest.raises(errors.NotAuthenticated, match="certificate"):
        make_verifier().verify(text, now)


def test_authority_out_of_its_time():
    # By days: it may take minutes until this test has its turn, and NOW stands still.
    old = tokens.issue("CA1", tokens.rsa_key("ca1"), is_authority=True, start=-2 * tokens.DAY, end=-tokens.DAY)
    with pytest.raises(errors.NotAuthenticated, match="certificate"):
        make_verifier(ca=old).verify(with_payload(), NOW)


def test_signer_at_the_ends_of_its_time():
    key = tokens.rsa_key("ca1")
    longer = tokens.issue("CA1", key, is_authority=True, start=-3 * tokens.DAY, end=3 * tokens.DAY)
    start, end = token.validity(ENGINE.certificate)
    for now in (start, end):
        make_verifier(ca=longer).verify(encode(sign_v2(make_fields(now, make_payload(now)), ENGINE)), now)
    for now in (start - 1, end + 1):
        with pytest.raises(errors.NotAuthenticated, match="the engine certificate is expired or not yet valid"):
            make_verifier(ca=longer).verify(encode(sign_v2(make_fields(now, make_payload(now)), ENGINE)), now)


def test_authority_with_an_elliptic_curve():
    text = encode(sign_v2(good_fields(), STRANGER))
    make_verifier(STRANGER, FOREIGN).verify(text, NOW)
    with pytest.raises(errors.NotAuthenticated, match="authority"):
        make_verifier(STRANGER, tokens.make_authority("CA2")).verify(text, NOW)


def test_authority_with_a_key_of_another_kind():
    """Nothing that it signed can be verified: it has the right name, and that is all."""
    other = tokens.issue("CA1", ed25519.Ed25519PrivateKey.generate(), FOREIGN, is_authority=True)
    with pytest.raises(errors.NotAuthenticated, match="authority"):
        make_verifier(ca=other).verify(with_payload(), NOW)


@pytest.mark.parametrize("signer", [STRANGER, SELF_SIGNED])
def test_signer_of_another_authority(signer):
    with pytest.raises(errors.NotAuthenticated, match="authority"):
        make_verifier(signer).verify(encode(sign_v2(good_fields(), signer)), NOW)


def test_signer_with_forged_issuer():
    # It names the right authority, but another key signed it.
    forger = tokens.issue("CA1", tokens.rsa_key("other"), is_authority=True)
    signer = tokens.issue("engine", tokens.rsa_key("engine"), forger)
    with pytest.raises(errors.NotAuthenticated, match="authority"):
        make_verifier(signer).verify(with_payload(), NOW)


# Configuration.


@pytest.mark.parametrize(
    "pem",
    [b"", b"hello", ENGINE.pem[:100], ENGINE.pem.replace(b"\nM", b"\n%M"), ENGINE.key_pem],
)
def test_unusable_certificate(pem):
    with pytest.raises(errors.ConfigError, match="engine_cert_file"):
        token.Verifier(pem, AUTHORITY.pem)
    with pytest.raises(errors.ConfigError, match="engine_ca_cert_file"):
        token.Verifier(ENGINE.pem, pem)


def test_signer_needs_rsa():
    with pytest.raises(errors.ConfigError, match="RSA"):
        make_verifier(FOREIGN)


def test_without_cryptography(tmp_path):
    (tmp_path / "cryptography.py").write_text("raise ImportError('as if it were not installed')")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", "from ovirt_imageio.sessions import token; token.check_support()"]
    done = subprocess.run(command, env=environ, check=False, stderr=subprocess.PIPE)
    assert b"ConfigError: [sessions] enable = 'true': expected the Python package 'cryptography'" in done.stderr


def test_verifier_without_cryptography(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    with pytest.raises(errors.ConfigError, match="expected the Python package 'cryptography', which is not installed"):
        make_verifier()


def test_payload_is_pretty_printed():
    # As the engine does; whatever reads it must not care.
    assert json.loads(good_fields()["data"])["transfer-ticket"] == tokens.TICKET_ID
    assert "\n" in good_fields()["data"]
