"""The rehearsal's small planner: it stands in for a language model, by keywords alone.

`plan` turns a prompt into columns with search terms, `select` picks from what the search found
and says why. Both answer in the shape the board application asks a real model for. No chance,
no clock, no I/O: the same words always give the same board.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

COLUMNS_MAX = 4
CARDS_MAX = 4
PROMPT_WORDS_MAX = 400


@dataclass(frozen=True)
class Theme:
    """One subject: the words that call it, and the columns it puts on a board."""

    name: str
    calls: str  # words; a trailing * matches every ending
    columns: tuple[tuple[str, str, tuple[str, ...]], ...]  # (name, kind, search terms)


def program(name: str, *queries: str) -> tuple[str, str, tuple[str, ...]]:
    return name, "program", queries


def library(name: str, *queries: str) -> tuple[str, str, tuple[str, ...]]:
    return name, "library", queries


THEMES = (
    Theme(
        "photography",
        "photo* picture* image* camera* raw panorama* gallery галере* фото* снимк* картин*",
        (
            program("Sort and develop", "photo", "raw image"),
            program("Edit and retouch", "image editor", "image manipulation"),
            program("Show and share", "image viewer", "slideshow or gallery"),
        ),
    ),
    Theme(
        "video",
        "video* film* movie* clip* youtube subtitle* vlog* видео* фильм* ролик* субтитр*",
        (
            program("Cut and edit", "video editor", "non-linear video"),
            program(
                "Convert and subtitle", "video converter or video transcoder", "subtitle editor",
            ),
            program("Record and play", "screen recorder", "media player"),
        ),
    ),
    Theme(
        "sound and music",
        "music* audio sound* podcast* song* record* guitar* piano* synth* band mp3 voice* "
        "музык* звук* подкаст* песн* гитар* голос*",
        (
            program("Record and mix", "audio editor", "multitrack audio"),
            program("Compose and notate", "music notation", "midi sequencer"),
            program("Collect and play", "music player", "audio tag"),
        ),
    ),
    Theme(
        "drawing and design",
        "draw* paint* design* illustrat* sketch* logo* poster* comic* icon* vector* font* "
        "рисова* рисун* дизайн* логотип* шрифт*",
        (
            program("Draw and paint", "paint program", "vector drawing"),
            program("Lay out pages", "page layout or typesetting", "diagram"),
            program("Type and colour", "font editor", "color picker"),
        ),
    ),
    Theme(
        "making in three dimensions",
        "3d cad model* print* render* blender animation* мод?ел* чертеж* чертёж*",
        (
            program("Model and draw", "3d modeller", "cad"),
            program(
                "Render and animate", "3d animation or 3d rendering", "ray tracer or raytracer",
            ),
            program("Slice and print", "3d printer or 3d printing", "stl"),
        ),
    ),
    Theme(
        "writing and publishing",
        "writ* book* novel* blog* article* thesis latex essay* paper* document* ebook* publish* "
        "писа* книг* роман* блог* стат* документ* диплом*",
        (
            program("Write without distraction", "word processor", "markdown editor"),
            program("Typeset and convert", "latex editor", "document converter"),
            program("Read and collect", "ebook", "bibliography"),
        ),
    ),
    Theme(
        "learning and school",
        "learn* teach* school* kid* child* student* education* homework* class lesson* "
        "учи* учён* школ* дет* ребен* ребён* студент* урок*",
        (
            program("Play and discover", "educational game", "children"),
            program("Practise", "vocabulary or flashcard", "typing tutor"),
            program("Numbers and shapes", "geometry", "mathematics"),
        ),
    ),
    Theme(
        "languages",
        "language* translat* dictionar* english german spanish japanese chinese russian french "
        "spelling vocabulary язык* перевод* слова* англ* немец*",
        (
            program("Look words up", "dictionary", "dictionary client"),
            program("Practise", "vocabulary or flashcard", "kanji or hangul or conjugation"),
            program("Translate and check", "translation tool", "spell checker"),
        ),
    ),
    Theme(
        "the sky",
        "astro* star stars planet* sky telescope* space galax* satellite* звезд* звёзд* астро* "
        "телескоп* планет* неб* космос*",
        (
            program("Look up", "planetarium or sky", "astronomy"),
            program("Observe and record", "telescope", "astronomical image"),
            program("Follow satellites", "satellite", "orbit or orbital"),
        ),
    ),
    Theme(
        "maps and travel",
        "map* gps travel* route* hik* geo* gis navigat* trip* bike* карт* путешеств* маршрут* "
        "поход* поезд*",
        (
            program("Read maps", "map viewer or map browser", "openstreetmap"),
            program("Plan and track", "gps", "gps route or gps track or gps logger"),
            program("Analyse places", "gis", "geographic information"),
        ),
    ),
    Theme(
        "science and data",
        "data science statistic* plot* chart* analys* analyz* research* graph* spreadsheet* "
        "данны* наук* статист* график* анализ* исследов*",
        (
            program("Look at data", "spreadsheet", "data analysis"),
            program("Draw it", "plotting", "data visualization"),
            library(
                "Compute with Python", "python statistics or python statistical", "python plotting",
            ),
        ),
    ),
    Theme(
        "machine learning",
        "machine ai llm neural embedding* classif* torch нейро* ии",
        (
            library("Train and predict", "machine learning", "neural network"),
            library("Words and language", "natural language", "tokenizer"),
            program("Search and recognise", "speech recognition", "ocr"),
        ),
    ),
    Theme(
        "chemistry and life",
        "chemist* molecul* biolog* dna gene* genom* protein* lab хими* молекул* биолог* генети*",
        (
            program("See molecules", "molecule or molecules", "molecular"),
            program("Read sequences", "dna sequence", "genome"),
            program("Draw and calculate", "chemical", "periodic table"),
        ),
    ),
    Theme(
        "mathematics",
        "math* algebra* equation* geometr* calcul* proof* theorem* математ* алгебр* уравнен* "
        "геометр* калькул*",
        (
            program("Solve", "computer algebra", "calculator"),
            program("See", "geometry", "plotter or fractal"),
            program("Prove", "theorem prover", "proof assistant"),
        ),
    ),
    Theme(
        "web sites",
        "web website* site* html css blog* cms wiki* shop* сайт* веб* вики* магазин*",
        (
            program("Build pages", "static site generator", "html editor or html converter"),
            program("Serve them", "web server", "http proxy"),
            program(
                "Test and watch",
                "http benchmark or http load",
                "link checker or web crawler or web testing",
            ),
        ),
    ),
    Theme(
        "programming",
        "program* code coding develop* software python rust java javascript debug* compiler* git "
        "api app apps программ* код* разработ* приложен* отлад*",
        (
            program("Write code", "ide", "code editor"),
            program("Find faults", "debugger", "static analysis"),
            program("Keep versions", "git", "version control"),
        ),
    ),
    Theme(
        "databases",
        "database* sql postgres* mysql sqlite redis query queries баз* субд",
        (
            program("Store", "relational database or sql server", "key-value or nosql"),
            program(
                "Look inside",
                "database browser or database viewer or database gui",
                "sql client or sql shell",
            ),
            program("Back up and move", "database backup", "database migration or database dump"),
        ),
    ),
    Theme(
        "servers and monitoring",
        "server* monitor* log logs metrics deploy* devops cloud container* docker uptime cluster* "
        "сервер* монитор* лог логи метрик* контейнер* облак*",
        (
            program("Watch", "monitoring system", "log analyzer"),
            program("Run and isolate", "container", "virtual machine"),
            program("Set up many", "configuration management", "deployment tool"),
        ),
    ),
    Theme(
        "networks",
        "network* wifi router* packet* dns vpn internet bandwidth сет* роутер* интернет* впн",
        (
            program("Look at traffic", "packet capture", "bandwidth monitor"),
            program("Connect safely", "vpn", "wireless"),
            program("Find and scan", "network scanner", "dns lookup"),
        ),
    ),
    Theme(
        "security and privacy",
        "secur* privacy password* encrypt* hack* anonym* forensic* safe virus* firewall* "
        "безопасн* парол* шифр* приватн* вирус*",
        (
            program("Keep secrets", "password manager", "encryption tool"),
            program("Find weak places", "vulnerability or vulnerabilities", "security audit"),
            program("Close the doors", "firewall", "intrusion detection"),
        ),
    ),
    Theme(
        "files and backup",
        "backup* file* sync* archive* disk* storage duplicate* organi* резерв* файл* архив* "
        "диск* синхрон*",
        (
            program("Back up", "backup", "incremental backup"),
            program("Sort and find", "file manager", "duplicate files"),
            program("Sync and pack", "file synchronization", "archive manager"),
        ),
    ),
    Theme(
        "work and planning",
        "office plan planning project* task* todo calendar* note notes time meeting* team* "
        "productiv* organi* офис* план* проект* задач* календар* замет* встреч* команд*",
        (
            program("Plan", "project management", "todo"),
            program("Remember", "note taking", "mind map or outliner"),
            program("Keep time", "calendar", "time tracker"),
        ),
    ),
    Theme(
        "money",
        "money budget* account* invoice* tax finance* bank* stock* crypto* деньг* бюджет* счет* "
        "счёт* налог* финанс* банк*",
        (
            program("Keep the books", "accounting", "personal finance"),
            program("Bill and count", "invoice or invoices or billing", "time tracking"),
            program("Follow markets", "stock or stocks", "financial or currency"),
        ),
    ),
    Theme(
        "messages",
        "chat* mail* email* message* call talk* conference* social matrix irc чат* почт* письм* "
        "сообщен* звон* общен*",
        (
            program("Chat", "messaging client", "irc client"),
            program("Mail", "mail client", "mailing list"),
            program("Call", "voip", "video chat or softphone"),
        ),
    ),
    Theme(
        "games",
        "game* play* gaming puzzle* chess fun arcade party игр* головолом* шахмат* весел*",
        (
            program("Think", "puzzle game", "chess"),
            program("Act", "arcade game", "racing game"),
            program("Play together", "multiplayer game", "card game"),
        ),
    ),
    Theme(
        "making games",
        "gamedev engine sprite* level* unity godot движок*",
        (
            program("Build", "game engine", "game development"),
            program("Draw", "pixel art or sprite", "level editor or tile map"),
            library("Program", "game library", "physics engine"),
        ),
    ),
    Theme(
        "electronics and hardware",
        "electronic* circuit* arduino* raspberry robot* sensor* hardware solder* radio* "
        "электрон* схем* ардуино* робот* датчик* радио* железо",
        (
            program("Draw circuits", "pcb", "circuit simulator"),
            program("Program boards", "arduino", "microcontroller"),
            program("Listen", "software defined radio", "logic analyzer"),
        ),
    ),
    Theme(
        "home and smart things",
        "home smart mqtt iot cook* recipe* garden* family genealog* дом дома рецепт* кухн* сад* "
        "семь* родослов*",
        (
            program("Connect things", "mqtt", "home automation or zigbee"),
            program("Cook", "recipe", "nutrition or food or cooking"),
            program("Keep the family", "genealogy", "media server"),
        ),
    ),
    Theme(
        "desktops",
        "desktop* linux laptop* window* theme* wallpaper* terminal* shell десктоп* ноутбук* "
        "терминал* линукс* обои",
        (
            program("Choose a desktop", "desktop environment", "tiling window manager"),
            program("Work in the terminal", "terminal emulator", "terminal multiplexer"),
            program("Make it yours", "wallpaper", "application launcher"),
        ),
    ),
    Theme(
        "access for everyone",
        "accessib* blind* screenreader braille magnif* eye eyes dyslex* доступност* слеп* брайл*",
        (
            program("Hear and feel", "screen reader", "braille"),
            program("See more", "magnifier or contrast", "speech synthesizer"),
            program("Point and type", "on-screen keyboard", "mouse gestures or pointer"),
        ),
    ),
)

# Words of a prompt that say nothing about its subject.
FILLER = frozenset(
    "a an and any about all also are as at be best board build but by can could do does for from "
    "get give good great have help how i in into is it its just kind know like list make making "
    "me my need new nice of on one or our out over please program programs show small software "
    "some something start that the their them then there they thing things this to tool tools "
    "up us use using very want we what when which who will with without work would you your "
    "package packages debian set setup create building non "
    "и в во на с со к по для из о об от до не но а или что как мне мы я мой моя мои наш это все "
    "всё хочу нужно надо можно сделай собери доску доска покажи дай программы программа".split()
)


def words(text: str) -> list[str]:
    """The words of a text in lower case, at most PROMPT_WORDS_MAX of them."""
    return re.findall(r"[^\W_]+", text.lower())[:PROMPT_WORDS_MAX]


def stem(word: str) -> str:
    """A word without its commonest English endings, to compare by; never shown."""
    for ending in ("ings", "ing", "ors", "ers", "or", "er", "ies", "es", "ed", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def called(theme: Theme, word: str) -> bool:
    """Does this word of a prompt call this theme?"""
    for call in theme.calls.split():
        if call.endswith("*"):
            if word.startswith(call[:-1]):
                return True
        elif word == call or (word.isascii() and stem(word) == stem(call)):
            return True
    return False


# --- the plan ------------------------------------------------------------------------------------


def plan(prompt: str) -> dict[str, Any]:
    """A board for the prompt: {title, columns: [{name, kind, queries}]}."""
    asked = [word for word in dict.fromkeys(words(prompt)) if word not in FILLER]
    hits = []
    for place, theme in enumerate(THEMES):
        found = [word for word in asked if called(theme, word)]
        if found:
            hits.append((-len(found), asked.index(found[0]), place, theme))
    themes = [hit[-1] for hit in sorted(hits, key=lambda hit: hit[:3])][:COLUMNS_MAX]
    columns = theme_columns(themes)
    if not themes:
        columns = plain_columns(asked)
    return {"title": title(themes, prompt), "columns": columns[:COLUMNS_MAX]}


def title(themes: list[Theme], prompt: str) -> str:
    if not themes:
        text = " ".join(prompt.split())
        return text if len(text) <= 60 else text[:57].rstrip() + "…"
    names = [theme.name for theme in themes[:2]]
    return " and ".join(names).capitalize()


def column(name: str, kind: str, queries: list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "kind": kind, "queries": list(queries)}


def theme_columns(themes: list[Theme]) -> list[dict[str, Any]]:
    """Columns of the themes in turn, the best match first; its own stand together."""
    share = [0] * len(themes)
    while sum(share) < COLUMNS_MAX:
        before = sum(share)
        for i, theme in enumerate(themes):
            if sum(share) < COLUMNS_MAX and share[i] < len(theme.columns):
                share[i] += 1
        if sum(share) == before:
            break
    chosen: list[dict[str, Any]] = []
    for theme, count in zip(themes, share):
        for name, kind, queries in theme.columns[:count]:
            taken = any(other["name"] == name for other in chosen)
            chosen.append(column(f"{name}: {theme.name}" if taken else name, kind, queries))
    return chosen


def plain_columns(asked: list[str]) -> list[dict[str, Any]]:
    """Columns for a subject no theme knows: the prompt's own words, by kind of package."""
    if not asked:
        return [column("To begin with", "program", ["text editor", "file manager"])]
    all_words = " ".join(asked[:3])
    either = " or ".join(asked[:6])
    queries = [all_words, either] if len(asked) > 1 else [all_words, f"{all_words} tool"]
    return [
        column("Programs", "program", queries),
        column("To build with", "library", queries),
        column("To read", "documentation", queries),
    ]


# --- the selection -------------------------------------------------------------------------------


def select(request: dict[str, Any]) -> dict[str, Any]:
    """Pick cards: {columns: [{name, cards: [{id, why}]}]}.

    `request` is {prompt, columns: [{name, queries, candidates: [{id, name, summary}]}]}. Raises
    ValueError when it is not of that shape.
    """
    try:
        asked = {stem(word): word for word in words(request["prompt"]) if word not in FILLER}
        taken: list[str] = []
        columns = []
        for wanted in request["columns"]:
            cards = select_column(wanted, asked, taken)
            columns.append({"name": wanted["name"], "cards": cards})
        return {"columns": columns}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a request to select from candidates: {error!r}") from None


def select_column(
    wanted: dict[str, Any], asked: dict[str, str], taken: list[str]
) -> list[dict[str, Any]]:
    """The best candidates of one column; adds their names to `taken`."""
    sought = {
        stem(word) for query in wanted["queries"] for word in words(query) if word not in FILLER
    }
    ranked = []
    for place, candidate in enumerate(wanted["candidates"]):
        summary = words(candidate["summary"])
        name = words(candidate["name"])
        hits = [word for word in dict.fromkeys(summary) if stem(word) in sought]
        extra = [word for word in dict.fromkeys(summary + name) if stem(word) in asked]
        # A short summary that holds the words is about them; a long one may mention them.
        score = 3 * len(hits) + 2 * len(extra) - 0.1 * len(summary) - 0.15 * place
        ranked.append((-score, place, candidate, hits, extra))
    cards: list[dict[str, Any]] = []
    for _, _, candidate, hits, extra in sorted(ranked, key=lambda entry: entry[:2]):
        if len(cards) == CARDS_MAX:
            break
        name = candidate["name"]
        if any(same_family(name, other) for other in taken):
            continue
        taken.append(name)
        cards.append({"id": candidate["id"], "why": why(hits, extra)})
    return cards


def same_family(name: str, other: str) -> bool:
    """gimp and gimp-data are one thing to a person; gimp and gimpbrush are two."""
    return f"{name}-".startswith(f"{other}-") or other.startswith(f"{name}-")


def why(hits: list[str], extra: list[str]) -> str:
    """One sentence with the words that decided."""
    also = [word for word in hits if word not in extra]
    if not extra and not also:
        return "Found by its long description."
    if not extra:
        return f"Its summary speaks of {listed(also)}."
    asked = f"You asked for {listed(extra)}"
    return f"{asked}; its summary speaks of {listed(also)} too." if also else f"{asked}."


def listed(found: list[str]) -> str:
    """At most two words as people write them."""
    return " and ".join(f"“{word}”" for word in found[:2])
