"""/busy computes for about 50 ms in pure Python and holds the GIL; everything else answers at once.

The work is a number of loops, not a time: every server does the same work however it is
interrupted. BENCH_BUSY_LOOPS comes from the harness, which measures once what 50 ms are here;
`python3 busy.py` prints that number.
"""
import os
import time

LOOPS = int(os.environ.get('BENCH_BUSY_LOOPS', '500000'))


def burn(loops):
    x = 1
    for i in range(loops):
        x = (x * 31 + i) & 0xffffffff
    return x


def app(environ, start_response):
    body = b'%d\n' % burn(LOOPS) if environ['PATH_INFO'] == '/busy' else b'hello world\n'
    start_response('200 OK', [('Content-Type', 'text/plain'),
                              ('Content-Length', str(len(body)))])
    return [body]


def calibrate(target_s=0.050):
    """Loops that take target_s alone on this machine: the best of five tries."""
    probe = 200_000
    best = float('inf')
    for _ in range(5):
        begin = time.perf_counter()
        burn(probe)
        best = min(best, time.perf_counter() - begin)
    return int(probe * target_s / best)


if __name__ == '__main__':
    print(calibrate())
