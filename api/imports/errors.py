"""What can be wrong with a mapping or with a whole file; single rows are rejected, not raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger.errors import LedgerError


@dataclass(frozen=True, slots=True)
class MappingProblem:
    """One fault of a mapping: the table (as a person finds it in the file), the key, and why."""

    table: str
    key: str
    sentence: str

    def __str__(self) -> str:
        place = f"{self.table}, key {self.key}" if self.key else self.table
        return f"{place}: {self.sentence}"


class MappingInvalidError(LedgerError):
    """A mapping cannot be used; ``problems`` lists every fault that was found."""

    code = "mapping_invalid"

    def __init__(self, problems: Sequence[MappingProblem], *, source: str = "mapping") -> None:
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(
            f"The mapping {source} cannot be used:\n{listed}",
            way_out="Correct the keys named above; examples/ shows complete mappings.",
        )


class FileRefusedError(LedgerError):
    """Base of all errors that concern a whole file of rows; ``file`` is its name."""

    code = "file_refused"

    def __init__(self, file: str, sentence: str, *, way_out: str) -> None:
        super().__init__(f"{file}: {sentence}", way_out=way_out)
        self.file = file


class FileUnreadableError(FileRefusedError):
    """The file is missing, is a folder, lies outside the import's folder or may not be read."""

    code = "file_unreadable"


class FileEmptyError(FileRefusedError):
    """The file or sheet holds nothing at all, not even a header."""

    code = "file_empty"


class EncodingUnclearError(FileRefusedError):
    """The file's encoding could not be told with certainty."""

    code = "encoding_unclear"


class BytesInvalidError(FileRefusedError):
    """Bytes are not valid in the file's encoding; ``line`` is the physical line, from 1."""

    code = "bytes_invalid"

    def __init__(self, file: str, *, encoding: str, line: int, invalid: bytes) -> None:
        super().__init__(
            file,
            f"Line {line} holds bytes that are not {encoding}: {invalid[:8].hex(' ')}.",
            way_out="Save the file again in one encoding, or name the real one by `encoding`.",
        )
        self.encoding = encoding
        self.line = line


class QuoteOpenError(FileRefusedError):
    """A quoted field runs over line breaks without a proper end; ``line`` is where it begins."""

    code = "quote_open"

    def __init__(self, file: str, *, line: int, detail: str) -> None:
        super().__init__(
            file,
            f"The quoting goes wrong from line {line} on ({detail}), so that the rows after it "
            "cannot be told apart.",
            way_out='Close the quote, or write a quote inside a field twice ("").',
        )
        self.line = line


class LineTooLongError(FileRefusedError):
    """A line is so long that the file is no table of text; ``line`` is counted from 1."""

    code = "line_too_long"

    def __init__(self, file: str, *, line: int, characters_max: int) -> None:
        super().__init__(
            file,
            f"Line {line} is longer than {characters_max:,} characters.",
            way_out="Check that the file is a CSV file with a line for each row.",
        )
        self.line = line


class HeaderMissingError(FileRefusedError):
    """There is no header where the mapping says that it stands."""

    code = "header_missing"


class ColumnMissingError(FileRefusedError):
    """The mapping names columns that the file's header lacks; ``columns`` lists them."""

    code = "column_missing"

    def __init__(self, file: str, columns: Sequence[str], sentence: str) -> None:
        super().__init__(
            file, sentence, way_out="Correct the column's name in the mapping or in the file."
        )
        self.columns = tuple(columns)


class HeaderDuplicateError(FileRefusedError):
    """A column that the mapping names stands in the header more than once."""

    code = "header_duplicate"

    def __init__(self, file: str, column: str, places: Sequence[int]) -> None:
        listed = ", ".join(str(place) for place in places)
        super().__init__(
            file,
            f"The header holds {column!r} more than once (columns {listed}).",
            way_out="Give each column that the mapping uses a name of its own.",
        )
        self.column = column


class NotAWorkbookError(FileRefusedError):
    """The file is no Excel workbook that can be read (.xlsx or .xlsm), or it is damaged."""

    code = "not_a_workbook"


class SheetMissingError(FileRefusedError):
    """The workbook has no sheet of that name."""

    code = "sheet_missing"


class WorkspaceUnusableError(LedgerError):
    """The folder for temporary files cannot be written, or its disk is full; nothing was filed."""

    code = "workspace_unusable"


class RejectsUnwritableError(LedgerError):
    """The list of rejects cannot be written where it was asked for."""

    code = "rejects_unwritable"
