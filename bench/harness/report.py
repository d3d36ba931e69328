"""Results: JSON for each scenario, one table in Markdown, lines for the terminal."""
import datetime
import glob
import json
import os

from . import scenarios
from .catalogue import ALL

MARK = {'met': 'met', 'tie': 'tie (within 25 %)', 'missed': '**missed**',
        'not measured': 'not measured', '': ''}


def number(value, unit=''):
    if value is None:
        return '–'
    size = abs(value)
    text = (f'{value:,.0f}' if size >= 1000 or value == int(value) else
            f'{value:.0f}' if size >= 100 else f'{value:.1f}' if size >= 10 else
            f'{value:.2f}')
    return text + unit


def build(scenario, contenders, samples, commands, failures, machine, options):
    """The record of one scenario, as it goes to its JSON file."""
    r = scenarios.Results(samples)
    rows = []
    base = r.median('weir', scenario.headline)
    for c in contenders:
        got = samples.get(c.key, [])
        metrics = {}
        for metric in dict.fromkeys(k for s in got for k in s if k != 'round'):
            value, spread = r.median(c.key, metric), r.spread(c.key, metric)
            if spread:
                metrics[metric] = {'median': value, 'min': spread[0], 'max': spread[1]}
            elif any(s.get(metric, 0) is None for s in got):
                metrics[metric] = {'median': None}
        mine = r.median(c.key, scenario.headline)
        better = None
        if base and mine:
            better = round(base / mine if scenario.higher else mine / base, 3)
        rows.append({
            'key': c.key, 'label': c.label, 'command': commands.get(c.key),
            'samples': got, 'metrics': metrics, 'weir_is_better_by': better,
            'notes': list(dict.fromkeys(s['note'] for s in got if 'note' in s)),
            'failure': failures.get(c.key),
            'busy_samples': sum(bool(s.get('busy')) for s in got),
        })
    criteria = []
    for c in scenario.criteria(r):
        criteria.append({
            'what': c.what, 'value': c.value, 'unit': c.unit, 'spread': c.spread, 'must': c.must,
            'aim': c.aim, 'higher_is_better': c.higher, 'never': c.never,
            'verdict': c.verdict(c.must), 'aim_verdict': c.verdict(c.aim)})
    return {
        'scenario': scenario.name, 'title': scenario.title, 'what': scenario.text,
        'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
        'options': options, 'machine': machine, 'pinned': scenario.pinned,
        'headline': scenario.headline, 'criteria': criteria, 'rows': rows,
        'notes': list(scenario.notes)}


def save(record, folder):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, record['scenario'] + '.json')
    with open(path + '.new', 'w') as file:
        json.dump(record, file, indent=1)
        file.write('\n')
    os.replace(path + '.new', path)


def load_all(folder):
    """Records on disk, in the order of the issue's table."""
    found = {}
    for path in glob.glob(os.path.join(folder, '*.json')):
        with open(path) as file:
            record = json.load(file)
        found[record['scenario']] = record
    return [found[s.name] for s in ALL if s.name in found]


def _cell(row, metric, form):
    figure = row['metrics'].get(metric)
    if figure is None:
        return ''
    if figure['median'] is None:
        return 'not within the limit'
    text = form.format(figure['median'])
    low, high = form.format(figure['min']), form.format(figure['max'])
    return text if low == high else f'{text} ({low}..{high})'


def _bound(c, key):
    if c[key] is None:
        return ''
    return ('≥ ' if c['higher_is_better'] else '≤ ') + number(c[key], c['unit'])


def _value(c):
    if c.get('never'):
        return 'not within the limit'
    text = number(c['value'], c['unit'])
    if c['spread'] and c['value'] is not None and number(c['spread'][0]) != number(c['spread'][1]):
        text += f' ({number(c["spread"][0])}..{number(c["spread"][1])})'
    return text


def _columns(record):
    for scenario in ALL:
        if scenario.name == record['scenario']:
            return scenario.columns
    return ()


def _day(record):
    return record['date'][:16].replace('T', ' ')


def markdown(records):
    out = ['# Measured', '',
           'Written by `bench/run`; how to read it: [bench/README.md](../README.md). Medians over '
           'the rounds, with min..max. What is within 25 % of a bound is called a tie. '
           'The raw samples are in the JSON files beside this one.', '']
    if not records:
        return '\n'.join(out + ['Nothing measured yet.', ''])
    out += ['## Against the targets', '',
            '| work | figure | Weir | must | | aim | |', '|---|---|---|---|---|---|---|']
    for record in records:
        for i, c in enumerate(record['criteria']):
            out.append('| ' + ' | '.join([
                record['title'] if not i else '', c['what'], _value(c), _bound(c, 'must'),
                MARK[c['verdict']], _bound(c, 'aim'), MARK[c['aim_verdict']]]) + ' |')
    out.append('')
    out += ['![The same as a picture](summary.svg)', '']
    for record in records:
        columns = _columns(record)
        out += [f'## {record["title"][0].upper()}{record["title"][1:]}', '', record['what'], '']
        headings = ['server'] + [h for _, h, _ in columns] + ['Weir is better by']
        out += ['| ' + ' | '.join(headings) + ' |', '|' + '---|' * len(headings)]
        for row in record['rows']:
            better = row['weir_is_better_by']
            cells = [row['label']]
            if row['failure'] and not row['samples']:
                cells += ['not measured'] + [''] * (len(columns) - 1)
            else:
                cells += [_cell(row, m, f) for m, _, f in columns]
            cells.append(f'{better:.2f}×' if better and row['key'] != 'weir' else '')
            out.append('| ' + ' | '.join(cells) + ' |')
        out.append('')
        for row in record['rows']:
            for note in row['notes']:
                out.append(f'- {row["label"]}: {note}.')
            if row['failure']:
                out.append(f'- {row["label"]}: {row["failure"]}')
        out += [f'- {note}' for note in record['notes']]
        loads = [s['load1'] for row in record['rows'] for s in row['samples'] if 'load1' in s]
        rounds = max((len(row['samples']) for row in record['rows']), default=0)
        busy = sum(row['busy_samples'] for row in record['rows'])
        total = sum(len(row['samples']) for row in record['rows'])
        line = f'- {_day(record)}, {rounds} round{"s" if rounds != 1 else ""}'
        if record['options'].get('quick'):
            line += ', quick'
        if loads:
            line += f'; load average {min(loads):.1f}..{max(loads):.1f} (ours included)'
        line += (f'; **others used the machine during {busy} of {total} samples**' if busy else
                 '; no sample was disturbed')
        out += [line + '.', '']
    out += ['## Machine', '']
    seen = {}
    for record in records:
        seen.setdefault(json.dumps(record['machine'], sort_keys=True), []).append(record)
    for text, same in seen.items():
        m = json.loads(text)
        if len(seen) > 1:
            out.append('For ' + ', '.join(r['scenario'] for r in same) + ':')
            out.append('')
        out += [f'- {m["cpu"]}, {m["cores"]} cores{" (virtual)" if m["virtual"] else ""}, '
                f'{m["memory_gib"]} GiB, {m["system"]}, Linux {m["kernel"]}',
                '- ' + ', '.join(f'{k} {v}' for k, v in m['versions'].items()), '']
    out += ['## Commands', '', 'PORT is a free port of 127.0.0.1, TMP a temporary folder.', '']
    for record in records:
        out.append(f'**{record["scenario"]}**')
        out.append('')
        for row in record['rows']:
            if row['command']:
                out.append(f'- {row["label"]}: `{row["command"]}`')
        out.append('')
    return '\n'.join(out)


def terminal(records):
    """The table of targets, for the end of a run."""
    lines = []
    for record in records:
        lines.append(record['title'])
        for c in record['criteria']:
            aim = f'   aim {_bound(c, "aim")}: {c["aim_verdict"]}' if c['aim'] is not None else ''
            lines.append(f'    {c["what"]:<44} {_value(c):<28} must {_bound(c, "must")}: '
                         f'{c["verdict"]}{aim}')
        for row in record['rows']:
            figure = row['metrics'].get(record['headline'])
            if figure:
                lines.append(f'        {row["label"]:<42} {record["headline"]} '
                             f'{number(figure["median"])}')
            elif row['failure']:
                lines.append(f'        {row["label"]:<42} {row["failure"][:90]}')
    return '\n'.join(lines)
