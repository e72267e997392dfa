"""Ask an endpoint for one flower: `TRIMTAB_URL=http://HOST:PORT python ask.py NAME`."""

import sys

import numpy as np

from trimtab import Client

with Client() as client:
    print(client.predict(sys.argv[1], np.array([[5.1, 3.5, 1.4, 0.2]])))
