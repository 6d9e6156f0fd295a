__all__ = ["CONN_STATES", "ENDS"]

ENDS: dict[str, str]
CONN_STATES: tuple[str, ...]
