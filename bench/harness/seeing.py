"""Scenarios about what is seen: what it costs to count, to scrape, to look at stacks and at the status page."""
import json
import os
import subprocess

from . import machine
from .scenarios import Contender, Criterion, Instructions, Scenario

# Everything that can be on; the collector is not there, so that spans are written and dropped.
EVERYTHING = ('--admin', '127.0.0.1:0', '--request-id', '--trace-context', '--server-timing', '--slow-request', '60s',
              '--otlp-endpoint', 'http://127.0.0.1:9/v1/traces')
NOTHING = ('--no-request-id', '--no-trace-context')


class Cost(Instructions):
    name = 'seeing-instructions'
    title = 'seeing: instructions of everything that is told of a request'
    text = 'The same hello request, with everything on (' + ' '.join(EVERYTHING) + ') and with nothing (' + \
           ' '.join(NOTHING) + '). callgrind, as for hello.'
    headline, est_s = 'single', (240, 100)

    def contenders(self, ctx):
        return [Contender('weir', 'Weir, everything on', 'weir', extra=EVERYTHING),
                Contender('weir-admin', 'Weir, with --admin alone', 'weir', extra=('--admin', '127.0.0.1:0')),
                Contender('weir-none', 'Weir, nothing', 'weir', extra=NOTHING)]

    def criteria(self, r):
        out = []
        for metric, heading in (('single', 'one per loop turn'), ('pipelined', '16 pipelined')):
            mine, none = r.median('weir', metric), r.median('weir-none', metric)
            more = mine - none if mine is not None and none is not None else None
            out.append(Criterion(f'more for a request, {heading}', more, 1500, higher=False, tie=0))
        return out


class Scrape(Scenario):
    name = 'seeing-scrape'
    title = 'seeing: a scrape of /metrics'
    text = 'bench/seeing/scrape.c: the page of 50 routes with places, all used, with five statuses and two refusals ' \
           'each, in four workers; in one thread, as the keeper makes it.'
    headline, higher, pinned, rounds, est_s = 'text_ms', False, False, 3, (10, 5)
    columns = (('text_ms', 'ms a page', '{:.2f}'), ('openmetrics_ms', 'ms as OpenMetrics', '{:.2f}'),
               ('text_kib', 'KiB', '{:.1f}'), ('openmetrics_kib', 'KiB as OpenMetrics', '{:.1f}'))

    def contenders(self, ctx):
        return [Contender('weir', 'src/admin/metrics', 'bare')]

    def sample(self, ctx, c):
        build = os.path.join(machine.ROOT, 'build')
        subprocess.run(['ninja', '-C', build, '--quiet', 'bench/seeing/bench_scrape'], check=True,
                       stdout=subprocess.DEVNULL, timeout=300)
        ctx.command = 'build/bench/seeing/bench_scrape'
        with machine.Watch() as watch:
            done = subprocess.run([os.path.join(build, 'bench', 'seeing', 'bench_scrape')], check=True,
                                  capture_output=True, text=True, timeout=300)
        got = json.loads(done.stdout)
        out = dict(text_ms=got['text_ms']['median'], openmetrics_ms=got['openmetrics_ms']['median'],
                   text_p99_ms=got['text_ms']['p99'], text_kib=got['text_bytes'] / 1024,
                   openmetrics_kib=got['openmetrics_bytes'] / 1024, **watch.record())
        del out['server_cores']  # there is none
        return out

    def criteria(self, r):
        return [r.bound('a page of 50 routes', 'weir', 'text_ms', 5, None, ' ms'),
                r.bound('its size', 'weir', 'text_kib', 256, None, ' KiB', tie=0)]


ALL = [cls() for cls in (Cost, Scrape)]
