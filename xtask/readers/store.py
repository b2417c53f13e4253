"""The object store that published tables are in, if they are in one.

env: STORE_PROTOCOL (s3, gcs, azure), STORE_ENDPOINT, STORE_REGION, STORE_USER, STORE_SECRET.
     Stores are on this machine, and speak HTTP without TLS.
"""

import os
from urllib.parse import urlsplit

PROTOCOL = os.environ.get("STORE_PROTOCOL")
ENDPOINT = os.environ.get("STORE_ENDPOINT", "")
USER = os.environ.get("STORE_USER", "")
SECRET = os.environ.get("STORE_SECRET", "")


def properties():
    """As pyiceberg takes them."""
    if PROTOCOL == "s3":
        return {
            "s3.endpoint": ENDPOINT,
            "s3.region": os.environ["STORE_REGION"],
            "s3.access-key-id": USER,
            "s3.secret-access-key": SECRET,
        }
    if PROTOCOL == "gcs":
        return {
            "gcs.service.host": ENDPOINT,
            # The store takes any.
            "gcs.oauth2.token": "token",
            "gcs.oauth2.token-expires-at": "4102444800000",
        }
    if PROTOCOL == "azure":
        authority = urlsplit(ENDPOINT).netloc
        return {
            "py-io-impl": "azure_io.AzureFileIO",
            "adls.account-name": USER,
            "adls.account-key": SECRET,
            "adls.blob-storage-authority": authority,
            "adls.blob-storage-scheme": "http",
            "adls.dfs-storage-authority": authority,
            "adls.dfs-storage-scheme": "http",
        }
    return {}


def connect(duckdb):
    """Tells DuckDB. It knows the S3 of anybody, but Google's and Azure's only where these are."""
    if PROTOCOL == "s3":
        duckdb.execute(
            f"CREATE SECRET (TYPE s3, ENDPOINT '{urlsplit(ENDPOINT).netloc}',"
            f" REGION '{os.environ['STORE_REGION']}', KEY_ID '{USER}', SECRET '{SECRET}',"
            " URL_STYLE 'path', USE_SSL false)"
        )
