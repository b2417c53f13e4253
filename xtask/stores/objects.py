"""What is in a bucket, and changes to it behind the back of the server that uses it.

usage: objects.py ready SECONDS          creates the bucket, waits until objects can be stored
       objects.py list [PREFIX]          size, key: a line each
       objects.py uploads                unfinished multipart uploads: id, key
       objects.py put KEY TEXT
       objects.py flip KEY OFFSET        one bit of one byte; an offset below 0 counts from the end
       objects.py delete KEY…
env:   STORE_PROTOCOL (s3, gcs, azure), STORE_ENDPOINT, STORE_BUCKET, STORE_REGION,
       STORE_USER and STORE_SECRET (access key; account and its key)

Only the standard library, so that it begins at once. Keys are UTF-8, fields separated by tabs.
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import sys
import time
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

BUCKET = os.environ["STORE_BUCKET"]
USER = os.environ.get("STORE_USER", "")
SECRET = os.environ.get("STORE_SECRET", "")
ENDPOINT = urlsplit(os.environ["STORE_ENDPOINT"])
# An answer that takes longer is none.
TIMEOUT = 60


class Refused(Exception):
    def __init__(self, method, path, status, body):
        super().__init__(f"{method} {path}: {status} {body[:500].decode(errors='replace')}")
        self.status = status


def send(method, path, query=(), body=b"", headers=None):
    """One request, below the endpoint's path, on a connection of its own: the body of its answer."""
    path = ENDPOINT.path.rstrip("/") + quote(path)
    query = [(name, str(value)) for name, value in query]
    headers = {"Content-Length": str(len(body)), **(headers or {})}
    headers.update(SIGN(method, path, query, body, headers))
    connection = http.client.HTTPConnection(ENDPOINT.hostname, ENDPOINT.port, timeout=TIMEOUT)
    try:
        target = path + ("?" + urlencode(query, quote_via=quote) if query else "")
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Refused(method, target, answer.status, content)
        return content
    finally:
        connection.close()


def elements(document, name):
    """The elements of that name, whatever their name space."""
    root = ElementTree.fromstring(document)
    return [element for element in root.iter() if element.tag.split("}")[-1] == name]


def field(element, name):
    for child in element:
        if child.tag.split("}")[-1] == name:
            return child.text or ""
    return ""


def keyed(key, *parts):
    for part in parts:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


class S3:
    """Signature version 4, buckets in the path."""

    region = os.environ.get("STORE_REGION", "us-east-1")

    @classmethod
    def sign(cls, method, path, query, body, _headers):
        if not USER:
            return {}
        moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{moment[:8]}/{cls.region}/s3/aws4_request"
        digest = hashlib.sha256(body).hexdigest()
        signed = {"host": ENDPOINT.netloc, "x-amz-content-sha256": digest, "x-amz-date": moment}
        canonical = [method, path, urlencode(sorted(query), quote_via=quote)]
        canonical += [f"{name}:{value}" for name, value in signed.items()]
        canonical += ["", ";".join(signed), digest]
        request = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        key = keyed(b"AWS4" + SECRET.encode(), moment[:8], cls.region, "s3", "aws4_request")
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, request])
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        credential = f"AWS4-HMAC-SHA256 Credential={USER}/{scope}"
        return {
            "x-amz-content-sha256": digest,
            "x-amz-date": moment,
            "Authorization": f"{credential}, SignedHeaders={';'.join(signed)}, Signature={signature}",
        }

    @staticmethod
    def create():
        send("PUT", f"/{BUCKET}")

    @staticmethod
    def list(prefix):
        token = None
        while True:
            query = [("list-type", 2), ("prefix", prefix)]
            query += [("continuation-token", token)] if token else []
            page = send("GET", f"/{BUCKET}", query)
            for entry in elements(page, "Contents"):
                yield int(field(entry, "Size")), field(entry, "Key")
            tokens = elements(page, "NextContinuationToken")
            if not tokens:
                return
            token = tokens[0].text

    @staticmethod
    def uploads():
        page = send("GET", f"/{BUCKET}", [("uploads", "")])
        return [(field(entry, "UploadId"), field(entry, "Key")) for entry in elements(page, "Upload")]

    @staticmethod
    def get(key):
        return send("GET", f"/{BUCKET}/{key}")

    @staticmethod
    def put(key, content):
        send("PUT", f"/{BUCKET}/{key}", body=content)

    @staticmethod
    def delete(key):
        send("DELETE", f"/{BUCKET}/{key}")


class Gcs:
    """The JSON API, without authentication; objects are written as the XML API does."""

    objects = f"/storage/v1/b/{BUCKET}/o"

    @staticmethod
    def sign(_method, _path, _query, _body, _headers):
        return {}

    @staticmethod
    def create():
        body = json.dumps({"name": BUCKET}).encode()
        send("POST", "/storage/v1/b", [("project", "test")], body, {"Content-Type": "application/json"})

    @classmethod
    def list(cls, prefix):
        token = None
        while True:
            query = [("prefix", prefix)] + ([("pageToken", token)] if token else [])
            page = json.loads(send("GET", cls.objects, query))
            for entry in page.get("items", []):
                yield int(entry["size"]), entry["name"]
            token = page.get("nextPageToken")
            if not token:
                return

    @staticmethod
    def uploads():
        return []

    @staticmethod
    def get(key):
        return send("GET", f"/{BUCKET}/{key}")

    @staticmethod
    def put(key, content):
        send("PUT", f"/{BUCKET}/{key}", body=content)

    @staticmethod
    def delete(key):
        send("DELETE", f"/{BUCKET}/{key}")


class Azure:
    """Shared Key; the account is in the endpoint's path."""

    version = "2023-11-03"

    @classmethod
    def sign(cls, method, path, query, body, headers):
        moment = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
        ours = {"x-ms-date": moment, "x-ms-version": cls.version}
        extra = {name.lower(): value for name, value in headers.items() if name.startswith("x-ms-")}
        length = str(len(body)) if body else ""
        lines = [method, "", "", length, "", headers.get("Content-Type", ""), *[""] * 6]
        lines += [f"{name}:{value}" for name, value in sorted({**ours, **extra}.items())]
        lines += [f"/{USER}{path}"]
        lines += [f"{name}:{value}" for name, value in sorted(query)]
        key = base64.b64decode(SECRET)
        text = "\n".join(lines).encode()
        signature = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        return {**ours, "Authorization": f"SharedKey {USER}:{signature}"}

    @staticmethod
    def create():
        send("PUT", f"/{BUCKET}", [("restype", "container")])

    @staticmethod
    def list(prefix):
        marker = None
        while True:
            query = [("restype", "container"), ("comp", "list"), ("prefix", prefix)]
            query += [("marker", marker)] if marker else []
            page = send("GET", f"/{BUCKET}", query)
            for entry in elements(page, "Blob"):
                size = elements(ElementTree.tostring(entry), "Content-Length")
                yield int(size[0].text), field(entry, "Name")
            marker = field(ElementTree.fromstring(page), "NextMarker")
            if not marker:
                return

    @staticmethod
    def uploads():
        return []

    @staticmethod
    def get(key):
        return send("GET", f"/{BUCKET}/{key}")

    @staticmethod
    def put(key, content):
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        send("PUT", f"/{BUCKET}/{key}", body=content, headers=headers)

    @staticmethod
    def delete(key):
        send("DELETE", f"/{BUCKET}/{key}")


STORE = {"s3": S3, "gcs": Gcs, "azure": Azure}[os.environ["STORE_PROTOCOL"]]
SIGN = STORE.sign


def probe():
    try:
        STORE.create()
    except Refused as refused:
        # It is there already.
        if refused.status != 409:
            raise
    STORE.put(".ready", b"ready")
    if STORE.get(".ready") != b"ready":
        raise OSError("an object is not what was stored")
    STORE.delete(".ready")


def ready(seconds):
    deadline = time.monotonic() + float(seconds)
    while True:
        try:
            return probe()
        except (OSError, http.client.HTTPException, Refused) as error:
            if time.monotonic() > deadline:
                sys.exit(f"not ready after {seconds} s: {error}")
            time.sleep(0.1)


def flip(key, offset):
    content = bytearray(STORE.get(key))
    content[int(offset)] ^= 1
    STORE.put(key, bytes(content))


def main(command, *arguments):
    if command == "ready":
        ready(*arguments)
    elif command == "list":
        for size, key in STORE.list(*arguments or ("",)):
            print(size, key, sep="\t")
    elif command == "uploads":
        for upload, key in STORE.uploads():
            print(upload, key, sep="\t")
    elif command == "put":
        key, text = arguments
        STORE.put(key, text.encode())
    elif command == "flip":
        flip(*arguments)
    elif command == "delete":
        for key in arguments:
            STORE.delete(key)
    else:
        sys.exit(__doc__)


try:
    main(*sys.argv[1:])
except (OSError, http.client.HTTPException, Refused) as error:
    sys.exit(str(error))
