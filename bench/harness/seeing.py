"""Scenarios about what is seen: what it costs to count, to scrape, to look at stacks and at the status page."""
from .scenarios import Contender, Criterion, Instructions

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


ALL = [cls() for cls in (Cost,)]
