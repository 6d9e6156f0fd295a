from collections.abc import Iterable

__all__ = ["DEFAULT_FIELDS", "FIELDS", "FORMATS", "head"]

FORMATS: tuple[str, ...]
FIELDS: dict[str, tuple[str, str]]
DEFAULT_FIELDS: dict[str, list[str]]

def head(form: str, fields: Iterable[str] | None = None) -> str: ...
