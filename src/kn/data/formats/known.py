"""The formats that `bash 0_get_data.sh NAME` takes. A new one is a module like `lama.py`, and its name here."""

from kn.data.formats import bear, counterfact, eleuther, lama, lre, pararel, popqa, zsre

FORMATS = {
    module.FORMAT.name: module.FORMAT for module in (lre, bear, pararel, lama, counterfact, zsre, popqa, eleuther)
}
