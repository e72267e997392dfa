"""Environments of models' own: what a model recorded of its Python and packages, made once by uv.

A model is unpickled by the packages it was logged with, or by luck. So each revision's pods run in an
environment made from what the model's folder records (`recipe`), found again by its content (`shelf`),
shared by whatever has the same content, and made whole or not at all (`making`). Where trimtab's own
environment holds all that is recorded, that one is used at once (`own`). `keeper` puts this together for the
control plane.
"""

from trimtab.environment.keeper import Keeper, Place

__all__ = ["Keeper", "Place"]
