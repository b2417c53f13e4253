"""The calls of Google's XML API that write, in front of fake-gcs-server, which has them as JSON only.

usage: gcs_xml_shim.py PORT PORT_OF_THE_SERVER

Adds: PUT of an object, also with x-goog-if-generation-match or x-goog-copy-source, and multipart
uploads. Everything else is passed on. Both ports are on the loopback interface.
"""

import hashlib
import http.client
import json
import re
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PORT, SERVER = int(sys.argv[1]), int(sys.argv[2])
# What begins the paths of the JSON API.
JSON_API = ("storage", "upload", "download", "batch", "_internal")
XML = [("Content-Type", "application/xml")]
BOUNDARY = "part-of-an-upload"
# Parts by upload and number.
UPLOADS = {}
LOCK = threading.Lock()


def ask(method, path, body=None, headers=None):
    """A request to the server: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", SERVER, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    timeout = 120

    def log_message(self, *_arguments):
        pass

    def answer(self, status, headers=(), body=b""):
        ours = ("transfer-encoding", "connection", "date", "server")
        head = self.command == "HEAD"
        self.send_response(status)
        for name, value in headers:
            is_length = name.lower() == "content-length"
            if name.lower() not in ours and (head or not is_length):
                self.send_header(name, value)
        if not head:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)
        self.wfile.flush()

    def condition(self, name, sign):
        """If-generation-match as the JSON API takes it."""
        value = self.headers.get(name)
        return "" if value is None else f"{sign}ifGenerationMatch={value}"

    def insert(self, bucket, key, content):
        """Stores an object: status, headers, body, and its metadata if it was stored."""
        kind = self.headers.get("Content-Type") or "application/octet-stream"
        metadata = json.dumps({"name": key, "contentType": kind})
        # The server ignores conditions of uploads of other types.
        condition = self.condition("x-goog-if-generation-match", "&")
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition}"
        body = (
            f"--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{metadata}\r\n"
            f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode()
            + content
            + f"\r\n--{BOUNDARY}--\r\n".encode()
        )
        headers = {"Content-Type": f"multipart/related; boundary={BOUNDARY}"}
        status, _, said = ask("POST", path, body, headers)
        if status == 412:
            return status, XML, b"<Error><Code>PreconditionFailed</Code></Error>", None
        if status >= 300:
            return status, XML, said, None
        stored = json.loads(said)
        etag = stored["etag"].strip('"')
        headers = [("ETag", f'"{etag}"'), ("x-goog-generation", str(stored["generation"]))]
        return status, headers, b"", etag

    def part(self, upload, number, content):
        with LOCK:
            parts = UPLOADS.get(upload)
            if parts is not None:
                parts[number] = content
        if parts is None:
            return self.answer(404)
        return self.answer(200, [("ETag", f'"{hashlib.md5(content).hexdigest()}"')])

    def begin(self, bucket, key):
        upload = uuid.uuid4().hex
        with LOCK:
            UPLOADS[upload] = {}
        self.result("InitiateMultipartUploadResult", bucket, key, [], f"<UploadId>{upload}</UploadId>")

    def complete(self, bucket, key, upload):
        with LOCK:
            parts = UPLOADS.pop(upload, None)
        if parts is None:
            return self.answer(404)
        content = b"".join(parts[number] for number in sorted(parts))
        status, headers, body, etag = self.insert(bucket, key, content)
        if etag is None:
            return self.answer(status, headers, body)
        return self.result("CompleteMultipartUploadResult", bucket, key, headers, f"<ETag>{etag}</ETag>")

    def result(self, name, bucket, key, headers, rest):
        body = (
            f"<?xml version='1.0'?><{name}><Bucket>{bucket}</Bucket>"
            f"<Key>{escape(key)}</Key>{rest}</{name}>"
        )
        self.answer(200, [*XML, *headers], body.encode())

    def copy(self, bucket, key):
        source = unquote(self.headers["x-goog-copy-source"]).lstrip("/")
        from_bucket, from_key = source.split("/", 1)
        condition = self.condition("x-goog-if-generation-match", "?")
        status, _, body = ask(
            "POST",
            f"/storage/v1/b/{from_bucket}/o/{quote(from_key, safe='')}"
            f"/rewriteTo/b/{bucket}/o/{quote(key, safe='')}{condition}",
            b"",
        )
        self.answer(status, XML, body)

    def ours(self, bucket, key, query, content):
        """Whether it was a call that the server doesn't know. If so it was answered."""
        upload = query.get("uploadId", [""])[0]
        if self.command == "PUT" and "partNumber" in query:
            self.part(upload, int(query["partNumber"][0]), content)
        elif self.command == "POST" and "uploads" in query:
            self.begin(bucket, key)
        elif self.command == "POST" and upload:
            self.complete(bucket, key, upload)
        elif self.command == "DELETE" and upload:
            with LOCK:
                UPLOADS.pop(upload, None)
            self.answer(204)
        elif self.command == "PUT" and self.headers.get("x-goog-copy-source"):
            self.copy(bucket, key)
        elif self.command == "PUT":
            self.answer(*self.insert(bucket, key, content)[:3])
        else:
            return False
        return True

    def serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length) if length else b""
        url = urlsplit(self.path)
        found = re.match(r"^/([^/]+)/(.+)$", url.path)
        if found and found.group(1) not in JSON_API:
            query = parse_qs(url.query, keep_blank_values=True)
            if self.ours(found.group(1), unquote(found.group(2)), query, content):
                return
        dropped = ("connection", "content-length", "host")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        self.answer(*ask(self.command, self.path, content or None, headers))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = serve


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, _request, _address):
        """A client or the server has gone: the connection ends."""


Server(("127.0.0.1", PORT), Handler).serve_forever()
