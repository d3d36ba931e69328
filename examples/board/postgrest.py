"""PostgREST's GET over the catalogue: a query string in, rows or PostgREST's own error out.

The subset, for the one table `packages`:

    select=name,title:summary   columns, `*`, renames; no embedding, casts or functions
    column=OP.value             eq neq gt gte lt lte like ilike in is fts plfts phfts wfts
    column=not.OP.value         the same, negated
    order=column.desc,column    asc (default) or desc, nullsfirst, nullslast
    limit=, offset=             and the Range header (Range-Unit: items)
    Prefer: count=exact         the total in Content-Range, and 206 when a part was sent

Full-text operators look into the text columns name, summary and description; a language in
brackets, as in `wfts(english)`, is accepted, and English is what they speak. Where a query gives
no order, PostgreSQL may return rows in any; here the best match then comes first.

Everything else of PostgREST (or=, and=, resource embedding, RPC, writing) is refused with an
error that says so. Nothing in this module waits or opens a socket.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from catalogue import COLUMNS

TABLE = "packages"
TEXT_COLUMNS = ("name", "summary", "description")
NUMBER_COLUMNS = ("id", "installed_kib")

# Rows in one answer, as hosted PostgREST limits them.
ROWS_MAX = 1000
# Pieces of one request; the request line is bounded by the HTTP server.
FILTERS_MAX = 32
WORDS_MAX = 32

# Words that PostgreSQL's English configuration leaves out of an index.
STOP_WORDS = frozenset(
    "a an and are as at be by for from has have in is it its of on or that the this to was "
    "with".split()
)

COMPARE = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
FULL_TEXT = ("fts", "plfts", "phfts", "wfts")
RESERVED = ("select", "order", "limit", "offset", "columns", "on_conflict")


class PostgrestError(Exception):
    """An error in PostgREST's shape: an HTTP status and {code, details, hint, message}."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "details": details, "hint": hint, "message": message}


def unreadable(what: str, text: str) -> PostgrestError:
    return PostgrestError(400, "PGRST100", f'"failed to parse {what} ({text})" (line 1, column 1)')


def no_column(name: str) -> PostgrestError:
    return PostgrestError(400, "42703", f"column {TABLE}.{name} does not exist")


@dataclass
class Query:
    """One request, translated. Values travel in `values`, never inside the SQL text."""

    fields: list[tuple[str, str]] = field(default_factory=list)  # (column, name in the answer)
    where: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    matches: list[str] = field(default_factory=list)  # FTS5 expressions that must all match
    order: list[str] = field(default_factory=list)
    limit: int = ROWS_MAX
    offset: int = 0
    count: bool = False  # Prefer: count=exact

    def _from(self) -> tuple[str, list[Any]]:
        """FROM and WHERE, with their values."""
        where, values = list(self.where), list(self.values)
        source = "packages p"
        if self.matches:
            source = "packages_fts f JOIN packages p ON p.id = f.rowid"
            where.insert(0, "packages_fts MATCH ?")
            values.insert(0, " AND ".join(f"({match})" for match in self.matches))
        return f"FROM {source}" + (f" WHERE {' AND '.join(where)}" if where else ""), values

    def rows_sql(self) -> tuple[str, list[Any]]:
        """The statement that fetches the rows."""
        tail, values = self._from()
        names = ", ".join(f"p.{column}" for column, _ in self.fields)
        if self.order:
            order = ", ".join(self.order)
        else:
            # A hit in the summary says more than one far down in the description.
            order = "bm25(packages_fts, 4, 10, 1), p.id" if self.matches else "p.id"
        sql = f"SELECT {names} {tail} ORDER BY {order} LIMIT ? OFFSET ?"
        return sql, [*values, self.limit, self.offset]

    def count_sql(self) -> tuple[str, list[Any]]:
        """The statement that counts all rows the filters let through."""
        tail, values = self._from()
        return f"SELECT count(*) {tail}", values


# --- parsing -------------------------------------------------------------------------------------


def parse(params: list[tuple[str, str]], headers: dict[str, str]) -> Query:
    """Translate the decoded query string and the headers (names in lower case).

    Raises PostgrestError.
    """
    query = Query()
    if len(params) > FILTERS_MAX:
        raise PostgrestError(400, "PGRST100", f"more than {FILTERS_MAX} query parameters")
    query.fields = [(column, column) for column in COLUMNS]
    for name, value in params:
        if name == "select":
            query.fields = parse_select(value)
        elif name == "order":
            query.order = [parse_order(term) for term in value.split(",")]
        elif name in ("limit", "offset"):
            setattr(query, name, parse_count(name, value))
        elif name in RESERVED:
            continue
        elif name in ("or", "and", "not.or", "not.and") or "." in name:
            raise PostgrestError(
                400, "PGRST100", f"the rehearsal server does not speak {name}=; one filter a column"
            )
        else:
            add_filter(query, name, value)
    query.limit = min(query.limit, ROWS_MAX)
    apply_range(query, headers.get("range", ""))
    query.count = "count=exact" in headers.get("prefer", "").replace(" ", "")
    return query


def parse_select(text: str) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    for part in text.split(",") if text else ["*"]:
        alias, colon, column = part.strip().rpartition(":")
        if column == "*" and not colon:
            fields += [(name, name) for name in COLUMNS]
            continue
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", column) or (colon and not alias):
            raise unreadable("select parameter", text)
        if column not in COLUMNS:
            raise no_column(column)
        fields.append((column, alias or column))
    return fields


def parse_order(term: str) -> str:
    column, *words = term.strip().split(".")
    if column not in COLUMNS:
        raise no_column(column)
    sql = f"p.{column}"
    for word in words:
        if word in ("asc", "desc") and sql == f"p.{column}":
            sql += f" {word.upper()}"
        elif word in ("nullsfirst", "nullslast"):
            sql += f" NULLS {word[5:].upper()}"
        else:
            raise unreadable("order", term)
    return sql


def parse_count(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise PostgrestError(
            400, "22P02", f'invalid input syntax for type bigint: "{text}"', f"in {name}"
        )
    return int(text)


def apply_range(query: Query, header: str) -> None:
    """Narrow the query by a Range header such as `0-9` or `20-`; others are ignored."""
    found = re.fullmatch(r"(?:items=)?([0-9]{1,12})-([0-9]{1,12})?", header.strip())
    if not found:
        return
    first = int(found[1])
    if found[2] is not None:
        if int(found[2]) < first:
            raise PostgrestError(
                416,
                "PGRST103",
                "Requested range not satisfiable",
                "The lower boundary must be lower than or equal to the upper boundary in the "
                "Range header.",
            )
        query.limit = min(query.limit, int(found[2]) - first + 1)
    query.offset += first


def add_filter(query: Query, column: str, text: str) -> None:
    """Add `column=text` to the query, where text is OP.value or not.OP.value."""
    if column not in COLUMNS:
        raise no_column(column)
    negated = text.startswith("not.")
    found = re.fullmatch(r"([a-z]+)(?:\(([A-Za-z_]+)\))?\.(.*)", text[4 * negated :], re.DOTALL)
    if not found:
        raise unreadable("filter", text)
    operator, language, value = found[1], found[2], found[3]
    if operator in FULL_TEXT:
        if column not in TEXT_COLUMNS:
            raise PostgrestError(
                404, "42883", f"operator does not exist: {TABLE}.{column} @@ tsquery"
            )
        add_match(query, column, FULL_TEXT_READERS[operator](value), negated)
        return
    if language:
        raise unreadable("filter", text)
    sql, values = comparison(column, operator, value)
    query.where.append(f"NOT ({sql})" if negated else sql)
    query.values += values


def comparison(column: str, operator: str, value: str) -> tuple[str, list[Any]]:
    """An SQL condition for every operator but the full-text ones."""
    if operator in COMPARE:
        return f"p.{column} {COMPARE[operator]} ?", [literal(column, value)]
    if operator == "like":
        # GLOB minds the case as PostgreSQL's LIKE does; its own wildcards become literal.
        pattern = re.sub(r"([\[?])", r"[\1]", value).replace("%", "*").replace("_", "?")
        return f"p.{column} GLOB ?", [pattern]
    if operator == "ilike":
        return f"p.{column} LIKE ?", [value.replace("*", "%")]
    if operator == "in":
        items = parse_list(value)
        marks = ", ".join("?" * len(items))
        return f"p.{column} IN ({marks})", [literal(column, item) for item in items]
    if operator == "is" and value.lower() in ("null", "true", "false"):
        return f"p.{column} IS {value.upper()}", []
    raise unreadable("filter", f"{operator}.{value}")


def literal(column: str, text: str) -> str | int:
    """A value in the type of its column."""
    if column not in NUMBER_COLUMNS:
        return text
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise PostgrestError(400, "22P02", f'invalid input syntax for type integer: "{text}"')
    return int(text)


def parse_list(text: str) -> list[str]:
    """The items of `(a,"b,c",d)`."""
    if not (text.startswith("(") and text.endswith(")")):
        raise unreadable("filter", f"in.{text}")
    items = []
    for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|([^,"]+)', text[1:-1]):
        items.append(bare or re.sub(r"\\(.)", r"\1", quoted))
    if len(items) > ROWS_MAX:
        raise PostgrestError(400, "PGRST100", f"more than {ROWS_MAX} values in a list")
    return items


# --- full text: PostgreSQL's query languages to FTS5's -------------------------------------------


def words_of(text: str) -> list[str]:
    """What an index keeps of a text: its words without the English stop words."""
    found = [word for word in re.findall(r"\w+", text.lower()) if word not in STOP_WORDS]
    if len(found) > WORDS_MAX:
        raise PostgrestError(400, "PGRST100", f"more than {WORDS_MAX} words in a text query")
    return found


def quoted(word: str) -> str:
    return f'"{word}"'


def plain_text(text: str) -> str:
    """plainto_tsquery: all of the words, in any order."""
    return " AND ".join(quoted(word) for word in words_of(text))


def phrase_text(text: str) -> str:
    """phraseto_tsquery: the words one after the other."""
    words = words_of(text)
    return f'"{" ".join(words)}"' if words else ""


def web_text(text: str) -> str:
    """websearch_to_tsquery: words, "a phrase", or, -without."""
    options: list[tuple[list[str], list[str]]] = [([], [])]
    for minus, phrase, word in re.findall(r'(-?)(?:"([^"]*)"|([^\s"]+))', text):
        if word.lower() == "or" and not minus:
            options.append(([], []))
            continue
        if word.startswith("-"):
            minus, word = "-", word[1:]
        term = phrase_text(phrase) if phrase else plain_text(word)
        if term:
            options[-1][1 if minus else 0].append(f"({term})")
    parts = []
    for wanted, unwanted in options:
        if wanted:
            parts.append(
                " AND ".join(wanted) + (f" NOT ({' OR '.join(unwanted)})" if unwanted else "")
            )
        elif unwanted:
            raise PostgrestError(
                400, "PGRST100", "the rehearsal server needs a word that is wanted beside -words"
            )
    return " OR ".join(f"({part})" for part in parts)


def operator_text(text: str) -> str:
    """to_tsquery: words with & | ! <-> and brackets; `word:*` matches a beginning.

    A `!` must follow an `&`, because FTS5 can only take away from something.
    """
    tokens = re.findall(r"<->|[&|!()]|'[^']*'|[^\s&|!()<']+|.", text.strip())
    out: list[str] = []
    wants_operand = True
    depth = 0
    for token in tokens:
        if token.isspace():
            continue
        if token in ("&", "|", "<->"):
            if wants_operand:
                raise bad_tsquery(text)
            out.append({"&": "AND", "|": "OR", "<->": "+"}[token])
            wants_operand = True
        elif token == "!":
            if not out or out[-1] != "AND":
                raise bad_tsquery(text)
            out[-1] = "NOT"
        elif token == "(":
            if not wants_operand:
                raise bad_tsquery(text)
            depth += 1
            out.append(token)
        elif token == ")":
            depth -= 1
            if wants_operand or depth < 0:
                raise bad_tsquery(text)
            out.append(token)
        else:
            beginning = token.endswith(":*")
            words = re.findall(r"\w+", token.removesuffix(":*").lower())
            if not wants_operand or not words:
                raise bad_tsquery(text)
            out.append(f'"{" ".join(words)}"' + ("*" if beginning else ""))
            wants_operand = False
    if depth or (out and wants_operand):
        raise bad_tsquery(text)
    if len(out) > 2 * WORDS_MAX:
        raise PostgrestError(400, "PGRST100", f"more than {WORDS_MAX} words in a text query")
    return " ".join(out)


def bad_tsquery(text: str) -> PostgrestError:
    return PostgrestError(400, "42601", f'syntax error in tsquery: "{text}"')


FULL_TEXT_READERS = {
    "fts": operator_text,
    "plfts": plain_text,
    "phfts": phrase_text,
    "wfts": web_text,
}


def add_match(query: Query, column: str, match: str, negated: bool) -> None:
    if not match:
        # Only stop words: PostgreSQL then matches nothing.
        query.where.append("1" if negated else "0")
        return
    if negated:
        query.where.append(
            "p.id NOT IN (SELECT rowid FROM packages_fts WHERE packages_fts MATCH ?)"
        )
        query.values.append(f"{column} : ({match})")
        return
    # A description begins with its summary, so naming both finds the same rows and ranks them
    # better.
    where = "{summary description}" if column == "description" else column
    query.matches.append(f"{where} : ({match})")


# --- running -------------------------------------------------------------------------------------


def run(db: sqlite3.Connection, query: Query) -> tuple[list[dict[str, Any]], int | None]:
    """(rows, total or None). Raises PostgrestError when SQLite refuses the query."""
    try:
        sql, values = query.rows_sql()
        names = [name for _, name in query.fields]
        rows = [dict(zip(names, row)) for row in db.execute(sql, values)]
        total = None
        if query.count:
            sql, values = query.count_sql()
            total = db.execute(sql, values).fetchone()[0]
    except (sqlite3.OperationalError, UnicodeEncodeError, OverflowError) as error:
        raise PostgrestError(400, "42601", f"the query cannot be run: {error}") from None
    return rows, total


def content_range(query: Query, count: int, total: int | None) -> tuple[int, str]:
    """(status, Content-Range) for an answer of `count` rows. Raises PostgrestError (416)."""
    if total is not None and query.offset and query.offset >= total:
        raise PostgrestError(
            416,
            "PGRST103",
            "Requested range not satisfiable",
            f"An offset of {query.offset} was requested, but there are only {total} rows.",
        )
    span = f"{query.offset}-{query.offset + count - 1}" if count else "*"
    status = 206 if total is not None and count < total else 200
    return status, f"{span}/{'*' if total is None else total}"
