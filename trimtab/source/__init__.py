"""Where models come from: a URI is resolved at the user's side, its files copied into an immutable cache.

`resolve` asks the user's tracking server or store what a URI means now; `download` copies the files
into the cache, under the name of their digest. What serves reads the cache only, so that it goes
on serving when the registry is away. MLflow takes seconds to import: it is imported when asked for.
"""

from trimtab.source.alias import alias_now
from trimtab.source.fetch import download
from trimtab.source.lazy import asked_of
from trimtab.source.registry import resolve, stamp_of

__all__ = ["alias_now", "asked_of", "download", "resolve", "stamp_of"]
