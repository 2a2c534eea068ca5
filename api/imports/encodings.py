"""Which encoding a file of text has, told only where it can be told with certainty."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from api.imports.errors import BytesInvalidError, EncodingUnclearError

CHUNK_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 16

_MARKS = (
    # UTF-32 first: its little-endian mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    ("\ufeff".encode("gb18030"), "gb18030"),
)

# GB18030 reads everything that its predecessors wrote, so they are read as GB18030.
_SUPERSETS = {
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "utf-8-sig": "utf-8",
    "ascii": "utf-8",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}

_TEXT_ENCODINGS = frozenset(
    {
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
        *("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949", "koi8-r", "koi8-u", "mac-roman"),
        *("cp437", "cp850", "cp852", "cp866", "cp874"),
        *(f"cp{number}" for number in range(1250, 1259)),
        *(f"iso8859-{number}" for number in range(1, 17) if number != 12),
    }
)

# Of the characters beyond ASCII, this share must be common simplified Chinese (GB 2312) before
# bytes that are not UTF-8 count as GB18030: Big5 and Western text often decode as GB18030 too.
_COMMON_SHARE_MIN = 0.75


def known_encoding(name: str) -> str | None:
    """Return the codec that reads what ``name`` means, or None if it is no encoding of text."""
    try:
        codec = codecs.lookup(name).name
    except (LookupError, UnicodeError, ValueError):
        return None
    codec = _SUPERSETS.get(codec, codec)
    return codec if codec in _TEXT_ENCODINGS else None


def settle_encoding(path: Path, named: str | None) -> str:
    """Return the codec of the file at ``path``, all of whose bytes were checked.

    ``named`` is what the mapping says, else the encoding is told from a byte-order mark, from
    the pattern of UTF-16, from being UTF-8 throughout, or from being GB18030 with mostly common
    characters. Raises BytesInvalidError naming the line, or EncodingUnclearError. Reads the
    whole file in chunks.
    """
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    marked = next((codec for mark, codec in _MARKS if sample.startswith(mark)), None)
    if named is not None:
        codec = _named_codec(path, named, marked, sample)
        return _checked(path, codec)
    if marked is not None:
        return _checked(path, marked)
    wide = _wide_codec(sample, path.stat().st_size)
    if wide is not None:
        return _checked(path, wide)
    if _first_fault(path, "utf-8") is None:
        return "utf-8"
    return _chinese_or_refused(path)


def _named_codec(path: Path, named: str, marked: str | None, sample: bytes) -> str:
    codec = known_encoding(named)
    if codec is None:
        raise EncodingUnclearError(
            path.name,
            f"{named!r} is no known encoding of text.",
            way_out="Name one such as utf-8, gb18030, utf-16 or big5, or none at all.",
        )
    if codec in ("utf-16", "utf-32"):
        if marked is not None and marked.startswith(codec):
            return marked
        wide = _wide_codec(sample, path.stat().st_size) if codec == "utf-16" else None
        # What has no mark was most likely written by a program on a little-endian machine.
        return wide or f"{codec}-le"
    return codec


def _checked(path: Path, codec: str) -> str:
    fault = _first_fault(path, codec)
    if fault is not None:
        line, invalid = fault
        raise BytesInvalidError(path.name, encoding=codec, line=line, invalid=invalid)
    return codec


def _first_fault(path: Path, codec: str) -> tuple[int, bytes] | None:
    """Return the line (from 1) and the bytes of the first fault in ``codec``, or None."""
    decoder = codecs.getincrementaldecoder(codec)()
    lines = _LineCounter()
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            try:
                lines.count(decoder.decode(chunk, final=not chunk))
            except UnicodeDecodeError as fault:
                lines.count(fault.object[: fault.start].decode(codec, errors="ignore"))
                return lines.line, fault.object[fault.start : fault.end]
            if not chunk:
                return None


class _LineCounter:
    """Counts lines that end in LF, CR or CR LF, over chunks of text."""

    def __init__(self) -> None:
        self.line = 1
        self._ended_in_return = False

    def count(self, text: str) -> None:
        if not text:
            return
        if self._ended_in_return and text[0] == "\n":
            self.line -= 1
        self.line += text.count("\n") + text.count("\r") - text.count("\r\n")
        self._ended_in_return = text[-1] == "\r"


def _wide_codec(sample: bytes, size: int) -> str | None:
    """Return the UTF-16 codec of text without a mark if it is certain, else None.

    It is certain if in one byte order only the text decodes to assigned, ordinary characters,
    and has a first line that is ASCII or has a delimiter in it. Zero bytes alone tell nothing of
    the order: the low byte of 一 is zero too.
    """
    if size % 2 or b"\x00" not in sample:
        return None
    codecs_found = [codec for codec in ("utf-16-le", "utf-16-be") if _reads_well(sample, codec)]
    return codecs_found[0] if len(codecs_found) == 1 else None


def _reads_well(sample: bytes, codec: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample)
    except UnicodeDecodeError:
        return False
    first, line_break, _ = text.replace("\r", "\n").partition("\n")
    if not line_break or not (first.isascii() or any(mark in first for mark in ",;\t|")):
        return False
    return all(map(_is_ordinary, set(text)))


def _is_ordinary(character: str) -> bool:
    return character in "\t\r\n" or unicodedata.category(character) not in ("Cc", "Cn", "Co", "Cs")


def _chinese_or_refused(path: Path) -> str:
    """Return gb18030 for bytes that are not UTF-8 throughout, or raise what is wrong."""
    evidence = _Evidence(path)
    if evidence.utf_8_lines >= evidence.chinese_lines and evidence.utf_8_lines:
        # Mostly UTF-8 with a few broken places: reading it as anything else would be mojibake.
        return _checked(path, "utf-8")
    if evidence.common_share < _COMMON_SHARE_MIN or not evidence.chinese_lines:
        raise EncodingUnclearError(
            path.name,
            "The encoding cannot be told: it is not UTF-8, and not certainly GB18030.",
            way_out='Name it in the mapping, such as encoding = "big5" or "cp1252".',
        )
    return _checked(path, "gb18030")


class _Evidence:
    """What the lines with bytes beyond ASCII look like in either encoding."""

    def __init__(self, path: Path) -> None:
        self.utf_8_lines = 0
        self.chinese_lines = 0
        self._common = 0
        self._total = 0
        for line in _byte_lines(path):
            if line.isascii():
                continue
            if _decodes(line, "utf-8"):
                self.utf_8_lines += 1
            elif _decodes(line, "gb18030"):
                self.chinese_lines += 1
                self._weigh(line.decode("gb18030"))

    @property
    def common_share(self) -> float:
        return self._common / self._total if self._total else 0.0

    def _weigh(self, text: str) -> None:
        ascii_count = len(text.encode("ascii", errors="ignore"))
        self._total += len(text) - ascii_count
        # Each character of GB 2312 takes two bytes, and what it lacks is left out.
        self._common += (len(text.encode("gb2312", errors="ignore")) - ascii_count) // 2


def _byte_lines(path: Path) -> Iterator[bytes]:
    # No byte of a longer character is a line feed, in UTF-8 as in GB18030.
    with path.open("rb") as file:
        while line := file.readline(CHUNK_BYTES):
            yield line


def _decodes(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True
