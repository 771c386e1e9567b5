"""The formats that `bash 0_get_data.sh NAME` takes. A new one is a module like `lre.py`, and its name here."""

from kn.data.formats import lre

FORMATS = {module.FORMAT.name: module.FORMAT for module in (lre,)}
