"""Files of Azure's Blob Storage for pyiceberg, by Arrow."""

from urllib.parse import urlsplit

from pyiceberg.io.pyarrow import PyArrowFileIO


class AzureFileIO(PyArrowFileIO):
    """Arrow wants `container/path` of `abfss://container@account…/path`."""

    @staticmethod
    def parse_location(location, properties=None):
        url = urlsplit(location)
        return url.scheme, url.netloc, url.username + url.path
