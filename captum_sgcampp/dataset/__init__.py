"""Maps of whole data sets: in batches, as Parquet parts that survive a crash, by one process, several or a cluster."""

from captum_sgcampp.dataset.attributor import Attributor
from captum_sgcampp.dataset.options import Options
from captum_sgcampp.dataset.reader import MapFiles
from captum_sgcampp.dataset.reader import MapFiles as open
from captum_sgcampp.dataset.run import attribute_dataset

__all__ = ["Attributor", "MapFiles", "Options", "attribute_dataset", "open"]
