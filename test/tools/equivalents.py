"""Mutants that no test can notice, or that it does not matter to notice, and why: see mutants.py.

By module, by the line and the change.
"""

from __future__ import annotations

__all__ = ["EQUIVALENTS"]

PIECE = "piece = memoryview(bytearray(min(PIECE, limit + 1 if self.length is None else self.length)))"

LONGEST_SALT = "longest = (self._signer.public_key().key_size + 6) // 8 - sha256.digest_size - 2"
REBUILD = "if len(self._heap) > 2 * len(self._due) + SLACK:"

NUMBERS = "numbers = {number: ours.get(kind_of(name), -1) for number, name in theirs.items()}"

EQUIVALENTS: dict[str, dict[tuple[str, str], str]] = {
    "auth/agenda": {
        ("SLACK = 64", "64 to 65"): "a bound: as good",
        ("SLACK = 64", "64 to 63"): "a bound: as good",
        (REBUILD, "Gt to GtE"): "a bound: as good",
        (REBUILD, "2 to 3"): "a bound: as good",
        (REBUILD, "2 to 1"): "a bound: as good",
    },
    "auth/books": {
        ("self._had_loss = False", "False to True"): "set before it is asked",
        ("self._had_loss = False", "left out"): "set before it is asked",
        ("break", "left out"): "another tag for each client that is attached: as good",
        ('if found is None and right == "write":', "And to Or"): "looks more often, and finds the same",
    },
    "auth/cutter": {
        ("MAX_CONNECTIONS = 128", "128 to 129"): "a bound: as good",
        ("MAX_CONNECTIONS = 128", "128 to 127"): "a bound: as good",
    },
    "geometry/outline": {
        ("for extent in clipped(extents, 0, size):", "0 to -1"): "no extent begins below 0",
    },
    "geometry/qcow2": {
        ("return MAX_DISK, MAX_DISK", "returns them swapped"): "they are the same",
        ("return digest.hexdigest()[:16]", "16 to 17"): "as good a tag",
        ("return digest.hexdigest()[:16]", "16 to 15"): "as good a tag",
    },
    "geometry/ranges": {
        ("CHUNK = 1024", "1024 to 1025"): "a bound: as good",
        ("CHUNK = 1024", "1024 to 1023"): "a bound: as good",
        ("if len(starts) > CHUNK:", "Gt to GtE"): "a bound: as good",
        ("LIMIT = 1024 * 1024", "1024 to 1025"): "a bound: as good",
        ("LIMIT = 1024 * 1024", "1024 to 1023"): "a bound: as good",
        ("self._firsts = [0]", "0 to -1"): "no offset is below 0",
        ("self._firsts[0] = 0", "0 to -1"): "no offset is below 0",
        ("if left <= start:", "LtE to Lt"): "the island is made again instead of longer",
        ("if starts[index] >= end:", "GtE to Gt"): "looks at one island more, which misses nothing",
        ("half = len(self._starts[chunk]) // 2", "2 to 3"): "a bound: as good",
    },
    "nbd/handshake": {
        ("LARGEST_MINIMUM_BLOCK = 64 * 1024", "64 to 65"): "the next power of two is 128 KiB",
        ("LARGEST_MINIMUM_BLOCK = 64 * 1024", "1024 to 1025"): "the next power of two is 128 KiB",
    },
    "nbd/ledger": {
        ("self._passes = True", "True to False"): "no payload has begun",
        ("self._passes = True", "left out"): "no payload has begun",
        ("continue", "left out"): "goes on the same",
        (NUMBERS, "1 to 2"): "no number is below 0",
        ("elif self._begun or size - position < self._longest:", "Lt to LtE"): "slower, and the same",
        ("return self._size_of(MAGIC.unpack_from(self._begun)[0])", "0 to -1"): "the first one is the only one",
    },
    "nbd/offer": {
        (
            "return int(struct.unpack(layout, self._bytes(struct.calcsize(layout)))[0])",
            "0 to -1",
        ): "the first one is the only one",
    },
    "net/controls": {
        ("return value[0]", "0 to -1"): "the first one is the only one",
    },
    "net/x509": {
        ('text = ("19" if text >= "50" else "20") + text', "GtE to Gt"): "the text is longer than the year",
    },
    "nbd/status": {
        ("if position >= end:", "GtE to Gt"): "what follows lies behind the range, and is left out",
    },
    "sessions/token": {
        (LONGEST_SALT, "6 to 7"): "keys have whole bytes",
        (LONGEST_SALT, "6 to 5"): "keys have whole bytes",
    },
    "httpd/body": {
        ("PIECE = 64 * 1024", "64 to 65"): "a bound: as good",
        ("PIECE = 64 * 1024", "64 to 63"): "a bound: as good",
        ("PIECE = 64 * 1024", "1024 to 1025"): "a bound: as good",
        ("PIECE = 64 * 1024", "1024 to 1023"): "a bound: as good",
        (PIECE, "1 to 2"): "the length of a step",
    },
    "httpd/head": {
        (
            "TOKEN_BYTES = frozenset(code for code in range(128) if re.fullmatch(TOKEN, chr(code)))",
            "128 to 129",
        ): "128 begins no token",
        (
            "TOKEN_BYTES = frozenset(code for code in range(128) if re.fullmatch(TOKEN, chr(code)))",
            "128 to 127",
        ): "127 begins no token",
        ('line_end = data.find(b"\\n", 0, LINE_LIMIT)', "0 to 1"): "the first byte is in a token",
        ("if line_end < 0:", "Lt to LtE"): "the first byte is in a token",
        ("if line_end < 0:", "0 to 1"): "the first byte is in a token",
        ("if match is not None and int(match.group(1)[:4]) != 1:", "4 to 5"): "it bounds a number: both are refused",
        ("if match is not None and int(match.group(1)[:4]) != 1:", "4 to 3"): "it bounds a number: both are refused",
    },
}
