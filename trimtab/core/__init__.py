"""The words of trimtab as small frozen types. Imports nothing else of ours; runs on Python 3.10 too."""
