#!/usr/bin/env python3
"""Read the wire cases (format: README.md).

As a module:  for case in wire.load_all(): case.name, case.data, case.verdict, ...
As a program: wire.py --list            one line per case
              wire.py --gunicorn        where Weir and Gunicorn judge differently
              wire.py --seeds DIR       seeds for the fuzzers: DIR/h1_head, DIR/chunked
"""
import argparse
import dataclasses
import hashlib
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
_SIMPLE = {'r': b'\r', 'n': b'\n', 't': b'\t', '\\': b'\\'}


@dataclasses.dataclass
class Case:
    file: str
    line: int
    name: str
    rfc: str = ''
    data: bytes = b''
    status: int = 0          # 0: not refused
    complete: bool = True    # False: the verdict is "more"
    in_body: bool = False    # the verdict is about the body; the head is good
    gunicorn: str = ''       # the verdict under `weir gunicorn`, where it differs
    unlike_gunicorn: str = ''  # "VERDICT; why": what Gunicorn does, where Weir does not follow
    limits: dict = dataclasses.field(default_factory=dict)
    expect: list = dataclasses.field(default_factory=list)  # (key, value bytes)

    @property
    def verdict(self):
        word = str(self.status) if self.status else 'ok' if self.complete else 'more'
        return word + (' in body' if self.in_body else '')

    def judge(self, verdict):
        match = re.fullmatch(r'(ok|more|\d{3})( in body)?', verdict)
        if not match:
            raise ValueError(f'{self.file}:{self.line}: unknown verdict {verdict!r}')
        self.status = int(match[1]) if match[1].isdigit() else 0
        self.complete = match[1] != 'more'
        self.in_body = bool(match[2])

    def under_gunicorn(self):
        """The case as `weir gunicorn` judges it."""
        case = dataclasses.replace(self)
        if self.gunicorn:
            case.judge(self.gunicorn)
            case.expect = []  # written for Weir's own verdict
        return case


def unescape(text):
    """The bytes that `text` stands for."""
    out, i = b'', 0
    while i < len(text):
        c = text[i]
        if c != '\\':
            out += c.encode()
            i += 1
        elif text[i + 1] in _SIMPLE:
            out += _SIMPLE[text[i + 1]]
            i += 2
        elif text[i + 1] == 'x':
            out += bytes.fromhex(text[i + 2:i + 4])
            i += 4
        elif text[i + 1] == '{':
            end = text.index('}', i)
            count, _, what = text[i + 2:end].partition('*')
            out += unescape(what) * int(count)
            i = end + 1
        else:
            raise ValueError(f'unknown escape \\{text[i + 1]}')
    return out


def load(path):
    cases = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        word, _, rest = line.partition(' ')
        if word == '=':
            cases.append(Case(path.name, number, rest))
            continue
        case = cases[-1]
        if word == '|':
            case.data += unescape(rest)
        elif word == 'rfc':
            case.rfc = rest
        elif word == 'limits':
            for item in rest.split():
                key, _, value = item.partition('=')
                case.limits[key] = int(value) if value else True
        elif word == '->':
            case.judge(rest)
        elif word == 'gunicorn':
            case.gunicorn = rest.partition(';')[0]
        elif word == 'unlike-gunicorn':
            case.unlike_gunicorn = rest
        else:
            case.expect.append((word, unescape(rest)))
    return cases


def load_all(folder=HERE):
    return [case for path in sorted(folder.glob('*.wire')) for case in load(path)]


def write_seeds(folder):
    """Heads, and of chunked bodies the part behind the head, behind the fuzzers' own first bytes."""
    for case in load_all():
        if len(case.data) > 4096:
            continue
        limits = 16 * ('lax' in case.limits) | 32 * bool(case.gunicorn) | 64 * (case.file == 'rules.wire')
        seeds = [('h1_head', bytes([limits, 128]) + case.data)]
        head, gap, body = case.data.partition(b'\r\n\r\n')
        if gap and body and case.file == 'chunked.wire':
            seeds.append(('chunked', b'\x80' + body))
        for target, data in seeds:
            path = folder / target / hashlib.sha1(data).hexdigest()[:16]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def main():
    parser = argparse.ArgumentParser(description='the wire cases')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--gunicorn', action='store_true')
    parser.add_argument('--seeds', type=pathlib.Path)
    options = parser.parse_args()
    if options.list:
        for case in load_all():
            print(f'{case.file}:{case.line}: {case.verdict:12} {case.rfc:16} {case.name}')
    if options.gunicorn:
        for case in load_all():
            if case.unlike_gunicorn:
                print(f'{case.name}: {case.under_gunicorn().verdict}; Gunicorn {case.unlike_gunicorn}')
    if options.seeds:
        write_seeds(options.seeds)


if __name__ == '__main__':
    main()
