"""Images: data sets by name, folders and files of a user's own, downloading, splitting, 8-bit pixels."""

from gascnn.toolkit.data.dataset import SPLITS, Dataset, ImageSet
from gascnn.toolkit.data.fetching import FetchProgress, fetch
from gascnn.toolkit.data.folder import load_folder_images
from gascnn.toolkit.data.loading import DatasetDescription, describe_datasets, load_dataset
from gascnn.toolkit.data.named import NAMED
from gascnn.toolkit.data.sources import search_places, user_cache

DATASET_NAMES = tuple(NAMED)
"""What ``--data`` takes besides paths."""

__all__ = [
    "DATASET_NAMES",
    "SPLITS",
    "Dataset",
    "DatasetDescription",
    "FetchProgress",
    "ImageSet",
    "describe_datasets",
    "fetch",
    "load_dataset",
    "load_folder_images",
    "search_places",
    "user_cache",
]
