"""Clients of what is served: `Client` and `AsyncClient`, the same in both worlds.

`payload` makes requests, `answers` reads replies, `patience` says when to ask again: all pure. `sync` and
`asynchronous` do the talking.
"""

from trimtab.client.answers import ServingError
from trimtab.client.asynchronous import AsyncClient
from trimtab.client.patience import Patience
from trimtab.client.sync import Client

__all__ = ["AsyncClient", "Client", "Patience", "ServingError"]
