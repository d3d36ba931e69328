"""One picture of the results: a panel for each row of the table, Weir in colour, peers in grey."""
import os

# (scenario, metric, title, unit, more is better)
PANELS = (
    ('hello', 'rps', '12-byte hello', 'requests a second', True),
    ('pipelined', 'rps', 'hello, 16 pipelined per write', 'requests a second', True),
    ('json', 'rps', 'POST 1 KiB JSON echo', 'requests a second', True),
    ('flask', 'rps', 'Flask hello', 'requests a second', True),
    ('slow-200', 'total_s', '200 requests that block 2 s each', 'seconds until all are answered',
     False),
    ('slow-200', 'health_p50_ms', '… and /health meanwhile', 'median, ms', False),
    ('board', 'total_20_s', '20 build-boards at once', 'seconds until all are answered', False),
    ('idle', 'each_kib', '10,000 idle connections', 'KiB of memory each', False),
    ('dribble', 'fast_p99_ms', 'fast requests beside 500 dribblers', '99th percentile, ms', False),
    ('busy', 'hello_p50_ms', 'hello beside busy handlers, p50', 'median, ms', False),
    ('busy', 'hello_p99_ms', 'hello beside busy handlers, p99', '99th percentile, ms', False),
    ('rss', 'rss_end_mib', 'memory after a million requests*', 'MiB', False),
)

INK, GREY, WEIR, MIDDLE = '#1b1f24', '#a8b0b9', '#1668b8', '#5d6772'
WIDE = 100  # a panel whose values lie this far apart is drawn on a logarithmic scale


def _short(value):
    if value >= 1000:
        return f'{value:,.0f}'
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def draw(records, folder, name='summary.svg'):
    """Writes the picture; False where there is nothing to draw or no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use('svg')
    import matplotlib.pyplot as plt

    by_name = {r['scenario']: r for r in records}
    panels = []
    for scenario, metric, title, unit, more in PANELS:
        bars = []
        for row in by_name.get(scenario, {}).get('rows', ()):
            figure = row['metrics'].get(metric)
            if figure is not None:
                bars.append((row, figure))
        if bars:
            panels.append((title, unit, more, bars))
    if not panels:
        return False

    plt.rcParams.update({'font.family': 'DejaVu Sans', 'font.size': 9, 'svg.fonttype': 'path',
                         'svg.hashsalt': 'weir', 'text.color': INK, 'axes.labelcolor': INK,
                         'xtick.color': INK, 'ytick.color': INK})
    across = 2
    down = (len(panels) + across - 1) // across
    slots = [max(len(p[3]) for p in panels[i * across:(i + 1) * across]) for i in range(down)]
    heights = [0.25 * n + 0.75 for n in slots]  # inches: the bars, and the title above them
    figure, grid = plt.subplots(down, across, figsize=(12.5, sum(heights) + 0.4), squeeze=False,
                                gridspec_kw={'height_ratios': slots})
    for axes in grid.flat[len(panels):]:
        axes.axis('off')
    for i, (axes, panel) in enumerate(zip(grid.flat, panels)):
        _panel(axes, *panel, slots[i // across])
    figure.tight_layout(rect=(0, 0.012, 1, 1), h_pad=1.6, w_pad=2.5)
    days = sorted(r['date'][:10] for r in records)
    when = days[0] if days[0] == days[-1] else f'{days[0]} to {days[-1]}'
    machine = records[0]['machine']
    foot = (f'Medians, thin lines min..max; measured {when}, {machine["cores"]} cores, '
            f'Linux {machine["kernel"]}, {machine["system"]}.')
    if 'rss' in by_name:
        foot += '  * peers: what they answer in 30 s'
    figure.text(0.01, 0.004, foot, fontsize=8, color=MIDDLE)
    figure.savefig(os.path.join(folder, name), metadata={'Date': None}, facecolor='white')
    plt.close(figure)
    return True


def _panel(axes, title, unit, more, bars, slots):
    values = [f['median'] for _, f in bars if f['median'] is not None]
    positive = [v for v in values if v > 0]
    wide = len(positive) > 1 and max(positive) / min(positive) > WIDE
    top = max(values, default=1) or 1
    floor = min(positive) / 3 if wide else 0
    for y, (row, f) in enumerate(bars):
        weir = row['key'] == 'weir'
        colour = WEIR if weir else GREY
        label = {'color': WEIR if weir else INK, 'weight': 'bold' if weir else 'normal',
                 'va': 'center', 'fontsize': 9}
        value = f['median']
        if value is None:
            axes.text(0.01, y, 'not within the limit', transform=axes.get_yaxis_transform(),
                      **{**label, 'color': MIDDLE, 'style': 'italic'})
            continue
        drawn = max(value, floor)
        axes.barh(y, drawn - floor, left=floor, height=0.68, color=colour, linewidth=0)
        end = drawn
        if f['max'] > f['min']:
            axes.plot([max(f['min'], floor), f['max']], [y, y], color=INK, linewidth=0.8)
            end = max(drawn, f['max'])
        axes.annotate(_short(value), (end, y), xytext=(5, 0), textcoords='offset points', **label)
        top = max(top, end)
    if wide:
        axes.set_xscale('log')
        axes.set_xlim(floor, top * (top / floor) ** 0.22)
    else:
        axes.set_xlim(0, top * 1.22)
    axes.set_ylim(slots - 0.5, -0.5)  # bars of one thickness, also beside a longer panel
    axes.set_yticks(range(len(bars)), [row['label'] for row, _ in bars])
    for text, (row, _) in zip(axes.get_yticklabels(), bars):
        if row['key'] == 'weir':
            text.set_color(WEIR)
            text.set_weight('bold')
    scale = ', logarithmic' if wide else ''
    axes.set_title(title, loc='left', fontsize=10.5, weight='bold', pad=17)
    axes.text(0, 1.0, f'{unit}{scale}; {"more" if more else "less"} is better',
              transform=axes.transAxes, fontsize=8, color=MIDDLE, va='bottom')
    axes.set_xticks([])
    axes.minorticks_off()
    axes.tick_params(axis='both', length=0)
    for side in ('top', 'right', 'bottom'):
        axes.spines[side].set_visible(False)
    axes.spines['left'].set_color(GREY)
    axes.spines['left'].set_bounds(len(bars) - 0.5, -0.5)
