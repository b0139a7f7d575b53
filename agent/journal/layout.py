"""The journal's tables in PostgreSQL: records that nobody changes, and for each desk one head that only moves forward.

A head says who may write (`epoch`, `holder`, `expires_at` by the server's clock) and where the journal ends (`seq`, `hash`), so
that records cut off at the end are missed, which the chain alone cannot show. Triggers refuse what an agent never does. Whoever
owns the tables can remove them; then the layout is not ours any more, and no agent opens it.
"""

from typing import LiteralString

from agent.domain.errors import JournalError
from agent.journal.codec import SCHEMA_VERSION, check_version
from agent.journal.database import Link

_REFUSE_CHANGE: LiteralString = """
BEGIN
  RAISE EXCEPTION '% is never changed or deleted', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END
"""
_REFUSE_GAP: LiteralString = """
BEGIN
  IF NEW.seq IS DISTINCT FROM (SELECT COALESCE(max(seq), 0) + 1 FROM isthmus.record WHERE desk = NEW.desk) THEN
    RAISE EXCEPTION 'records are numbered without gaps' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END
"""
_REFUSE_RETURN: LiteralString = """
BEGIN
  IF NEW.desk <> OLD.desk OR NEW.epoch < OLD.epoch OR NEW.seq < OLD.seq THEN
    RAISE EXCEPTION 'a head only moves forward' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END
"""

_FUNCTIONS: dict[LiteralString, LiteralString] = {
    "refuse_change": _REFUSE_CHANGE,
    "refuse_gap": _REFUSE_GAP,
    "refuse_return": _REFUSE_RETURN,
}
_TRIGGERS: tuple[tuple[LiteralString, LiteralString, LiteralString, LiteralString], ...] = (
    ("record", "record_gapless", "BEFORE INSERT ON isthmus.record FOR EACH ROW", "refuse_gap"),
    ("record", "record_kept", "BEFORE DELETE OR UPDATE OR TRUNCATE ON isthmus.record FOR EACH STATEMENT", "refuse_change"),
    ("head", "head_forward", "BEFORE UPDATE ON isthmus.head FOR EACH ROW", "refuse_return"),
    ("head", "head_kept", "BEFORE DELETE OR TRUNCATE ON isthmus.head FOR EACH STATEMENT", "refuse_change"),
)
_TABLES: tuple[LiteralString, ...] = (
    "CREATE TABLE isthmus.version (version integer NOT NULL)",
    "CREATE TABLE isthmus.head (desk text PRIMARY KEY, epoch bigint NOT NULL, holder text NOT NULL,"
    " expires_at timestamptz NOT NULL, seq bigint NOT NULL, hash text NOT NULL)",
    "CREATE TABLE isthmus.record (desk text NOT NULL, seq bigint NOT NULL, at_ns bigint NOT NULL, body bytea NOT NULL,"
    " hash text NOT NULL, PRIMARY KEY (desk, seq))",
)
_COLUMNS = {
    "version": ["version integer"],
    "head": ["desk text", "epoch bigint", "holder text", "expires_at timestamp with time zone", "seq bigint", "hash text"],
    "record": ["desk text", "seq bigint", "at_ns bigint", "body bytea", "hash text"],
}
_LAYOUT_LOCK = 0x49535448  # 'ISTH': two agents that open a new database at once lay out one after the other


def lay_out(link: Link) -> None:
    """Makes the tables of a database that has none. Raises JournalError where this user may not."""
    if is_laid_out(link):
        return
    schema: tuple[LiteralString, ...] = () if _has_schema(link) else ("CREATE SCHEMA isthmus",)
    functions: list[LiteralString] = [
        f"CREATE FUNCTION isthmus.{name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$" for name, body in _FUNCTIONS.items()
    ]
    triggers: list[LiteralString] = []
    for table, name, when, function in _TRIGGERS:
        triggers.append(f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION isthmus.{function}()")
        triggers.append(f"ALTER TABLE isthmus.{table} ENABLE ALWAYS TRIGGER {name}")  # a replication role would skip it
    link.run("SELECT pg_advisory_lock(%s)", (_LAYOUT_LOCK,))
    try:
        if not is_laid_out(link):
            with link.transaction():
                for statement in (*schema, *_TABLES, *functions, *triggers):
                    link.run(statement)
                link.run("INSERT INTO isthmus.version VALUES (%s)", (SCHEMA_VERSION,))
    finally:
        link.run("SELECT pg_advisory_unlock(%s)", (_LAYOUT_LOCK,))


def is_laid_out(link: Link) -> bool:
    return bool(link.run("SELECT to_regclass('isthmus.version') IS NOT NULL").rows[0][0])


def check_layout(link: Link) -> None:
    """Raises JournalError unless the tables are ours, of a version that we read, unchanged, and kept through a crash."""
    versions = link.run("SELECT version FROM isthmus.version").rows
    check_version(max((int(row[0]) for row in versions), default=0))
    columns: dict[str, list[str]] = {}
    for table, column in link.run(_FIND_COLUMNS).rows:
        columns.setdefault(table, []).append(column)
    triggers = {tuple(row) for row in link.run(_FIND_TRIGGERS).rows}
    expected = {
        (table, name, f"CREATE TRIGGER {name} {when}", "A", _FUNCTIONS[function]) for table, name, when, function in _TRIGGERS
    }
    odd = link.run(_FIND_ODD).rows
    if columns != _COLUMNS or triggers != expected or odd:
        raise JournalError("the journal's tables were changed, records may have been edited; restore the database from a copy")


def raise_version(link: Link) -> None:
    """What is written from now on, an agent of an older version could not read: it must not open the journal any more."""
    if link.run("SELECT 1 FROM isthmus.version WHERE version < %s", (SCHEMA_VERSION,)).rows:
        link.run("UPDATE isthmus.version SET version = %s WHERE version < %s", (SCHEMA_VERSION, SCHEMA_VERSION))


def _has_schema(link: Link) -> bool:
    return bool(link.run("SELECT to_regnamespace('isthmus') IS NOT NULL").rows[0][0])


_FIND_COLUMNS: LiteralString = (
    "SELECT c.relname, a.attname || ' ' || format_type(a.atttypid, a.atttypmod)"
    " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'isthmus'::regnamespace"
    " AND c.relname IN ('version', 'head', 'record') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
)
_FIND_TRIGGERS: LiteralString = (
    "SELECT c.relname, t.tgname, split_part(pg_get_triggerdef(t.oid), ' EXECUTE', 1), t.tgenabled::text, p.prosrc"
    " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
    " WHERE c.relnamespace = 'isthmus'::regnamespace AND NOT t.tgisinternal"
)
# Tables that forget at a crash (unlogged), or show and take other rows than they hold (rules, row security, views, heirs).
_FIND_ODD: LiteralString = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'isthmus'::regnamespace AND relname IN ('version', 'head', 'record')"
    " AND (relkind <> 'r' OR relpersistence <> 'p' OR relhasrules OR relrowsecurity OR relhassubclass)"
)
