"""waitress-serve without its queue warnings.

By default Waitress logs a line for every second request or so while its queue is longer than its
threads are many, which costs it a tenth of its throughput. Its own command line cannot turn that
off; the benchmark does, as it turns off everybody's access log.
"""
import logging
import sys

from waitress.runner import run

logging.getLogger('waitress.queue').setLevel(logging.ERROR)
sys.argv[0] = 'waitress-serve'
run(sys.argv)
